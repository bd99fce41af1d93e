/**
 * Canonical JSON: sorted keys and no spaces, as Python's `json.dumps(sort_keys=True, separators=(",", ":"))` writes it.
 *
 * Numbers and strings keep their text: `1.0` and `1e-05` would be written otherwise after a round trip through numbers.
 */

const TOKEN = /\s*("(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+)/y;

/**
 * Return the canonical form of an object without one of its keys.
 * @param {string} text valid JSON of an object
 * @param {string} omitted key of the outermost object
 */
export function canonicalJson(text, omitted) {
  TOKEN.lastIndex = 0;
  const next = () => /** @type {RegExpExecArray} */ (TOKEN.exec(text))[1];

  /**
   * @param {string} token
   * @param {string} [without]
   * @returns {string}
   */
  function value(token, without) {
    if (token === "{") return object(without);
    if (token === "[") return array();
    return token;
  }

  /** @param {string} [without] */
  function object(without) {
    /** @type {[string, string][]} */
    const members = [];
    for (let token = next(); token !== "}"; token = next()) {
      if (token === ",") continue;
      next(); // the colon
      members.push([token, value(next())]);
    }
    const kept = members.filter(([key]) => key !== JSON.stringify(without));
    kept.sort(([left], [right]) => (left < right ? -1 : 1));
    return `{${kept.map(([key, member]) => `${key}:${member}`).join(",")}}`;
  }

  function array() {
    /** @type {string[]} */
    const items = [];
    for (let token = next(); token !== "]"; token = next()) {
      if (token !== ",") items.push(value(token));
    }
    return `[${items.join(",")}]`;
  }

  return value(next(), omitted);
}
