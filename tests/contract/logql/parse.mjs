// Reads LogQL queries as JSON strings, a line each, and writes for each what Grafana's own grammar makes of it: `wrong` is
// empty for a query that it accepts, `labels` are those that select streams, `fields` those that are used of lines.
import { createInterface } from "node:readline";
import { parser } from "@grafana/lezer-logql";

const FIELDS = new Set(["LabelFilter", "UnwrapExpr", "Grouping"]);
const KEYWORDS = new Set(["unwrap", "by", "without"]);

function names(text) {
  return (text.replace(/"(\\.|[^"\\])*"|`[^`]*`/g, "").match(/[A-Za-z_]\w*/g) ?? []).filter((name) => !KEYWORDS.has(name));
}

for await (const line of createInterface({ input: process.stdin })) {
  const query = JSON.parse(line);
  const found = { wrong: [], labels: [], fields: [] };
  parser.parse(query).iterate({
    enter(node) {
      const text = query.slice(node.from, node.to);
      if (node.type.isError) found.wrong.push(`at ${node.from}: ${query.slice(node.from, node.from + 30)}`);
      if (node.name === "Selector") found.labels.push(...names(text));
      if (FIELDS.has(node.name)) found.fields.push(...names(text));
    },
  });
  console.log(JSON.stringify(found));
}
