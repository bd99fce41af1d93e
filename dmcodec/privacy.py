"""What the libraries of dmcodec report home is switched off: `import dmcodec` does so, before they are imported.

Each library reads an environment variable when it is imported. Child processes inherit the variables. A variable that
the user set to `0`, `false`, `no` or `off` is left as it is: that switches the reports on.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
# "1" switches off. The name of a variable -> what is sent without it.
REPORTS = {
    ONNXRUNTIME: "onnxruntime, from 1.29 on: machine, sessions, hashes of the graphs and timings, to Microsoft",
    "HF_HUB_DISABLE_TELEMETRY": "huggingface_hub, transformers and datasets: installed libraries, with each download",
    "DISABLE_SAFETENSORS_CONVERSION": "transformers: the name of a model without safetensors, to a conversion service",
}
_ON = ("0", "false", "no", "off")


def switch_off_reports(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables of REPORTS, except those by which the user switched reports on."""
    for variable in REPORTS:
        if not wanted(variable, environment):
            environment[variable] = "1"


def wanted(variable: str, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Return whether the user switched on the reports that a variable of REPORTS switches off."""
    return environment.get(variable, "").strip().lower() in _ON
