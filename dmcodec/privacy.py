"""What the libraries of dmcodec report home is switched off: `import dmcodec` does so, before they are imported.

Each library reads an environment variable when it is imported. Child processes inherit the variables. A variable by
which the user switched the reports on is left as it is: `0`, `false`, `no` or `off` where the variable disables them,
`1` where it enables them.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
RAY = "RAY_USAGE_STATS_ENABLED"
# The name of a variable -> what is sent without it. `off_value` switches off.
REPORTS = {
    ONNXRUNTIME: "onnxruntime, from 1.29 on: machine, sessions, hashes of the graphs and timings, to Microsoft",
    "HF_HUB_DISABLE_TELEMETRY": "huggingface_hub, transformers and datasets: installed libraries, with each download",
    "DISABLE_SAFETENSORS_CONVERSION": "transformers: the name of a model without safetensors, to a conversion service",
    RAY: "ray: size of the cluster, libraries and features that are used, versions and system, to its maker",
}
_NO = ("0", "false", "no", "off")
# Variables that enable reports; the others disable them. Ray takes no other values than 0 and 1.
_ENABLING = {RAY: ("1",)}


def switch_off_reports(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables of REPORTS, except those by which the user switched reports on."""
    for variable in REPORTS:
        if not wanted(variable, environment):
            environment[variable] = off_value(variable)


def off_value(variable: str) -> str:
    """Return the value of a variable of REPORTS that switches the reports off."""
    return "0" if variable in _ENABLING else "1"


def wanted(variable: str, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Return whether the user switched on the reports that a variable of REPORTS switches off."""
    return environment.get(variable, "").strip().lower() in _ENABLING.get(variable, _NO)
