"""JSON schemas as kubeconform reads them, from what the API server itself says of its objects (/openapi/v3)."""

import json
import time

KIND = "x-kubernetes-group-version-kind"


def strict(schema):
    """A field that is not listed is an error, wherever fields are listed."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema["additionalProperties"] = False
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)
    return schema


def write(server, folder):
    """One file for each kind of the server: KIND-GROUP-VERSION.json, the kind in lower case, no group for core."""
    for path, where in json.loads(server.raw("/openapi/v3"))["paths"].items():
        if not path.startswith(("api/", "apis/")) or path.count("/") < 1:
            continue
        schemas = json.loads(server.raw(where["serverRelativeURL"])).get("components", {}).get("schemas", {})
        document = strict({"components": {"schemas": schemas}})
        for name, schema in schemas.items():
            for kind in schema.get(KIND, []):
                if len(schema[KIND]) > 1:
                    continue  # what every group has, as DeleteOptions
                # Next to a $ref nothing else counts, so the whole group is below it.
                whole = {"$schema": "https://json-schema.org/draft/2020-12/schema",
                         "allOf": [{"$ref": f"#/components/schemas/{name}"}], **document}
                group = f"-{kind['group']}" if kind["group"] else ""
                (folder / f"{kind['kind'].lower()}{group}-{kind['version']}.json").write_text(json.dumps(whole))


def published(server, group, kinds, seconds=60):
    """Waits until the API server says what the objects of these kinds look like."""
    until = time.monotonic() + seconds
    while True:
        path = json.loads(server.raw("/openapi/v3"))["paths"].get(group)
        found = set()
        if path:
            of = json.loads(server.raw(path["serverRelativeURL"])).get("components", {}).get("schemas", {})
            found = {kind["kind"] for schema in of.values() for kind in schema.get(KIND, [])}
        if kinds <= found:
            return
        if time.monotonic() > until:
            raise AssertionError(f"{sorted(kinds - found)} of {group} are not published after {seconds} s")
        time.sleep(0.5)
