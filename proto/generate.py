"""Makes what follows from the contract: the Python code and its types, and the second half of the reference.

``python proto/generate.py`` writes; with ``--check`` it only says what is not as it would be written (exit code 1).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

HERE = Path(__file__).parent
ROOT = HERE.parent
CODE = ROOT / "packages/ops-core/src/ops_core/protocol/v1"
PAGE = ROOT / "docs/reference/grpc-api.md"
MARK = "<!-- From here on made from proto/ by `make proto`. -->\n"

KINDS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}

Comments = Mapping[tuple[int, ...], str]


def main(*, check: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        described = compiled(Path(folder))
        wanted = {CODE / path.name: relocated(path.read_text()) for path in generated(Path(folder))}
    wanted[CODE / "__init__.py"] = '"""The messages and services of opspawn.v1: made by `make proto`."""\n'
    wanted[PAGE] = PAGE.read_text().partition(MARK)[0] + MARK + "\n" + reference(described)
    found = {path: path.read_text() if path.exists() else None for path in wanted}
    found.update({path: path.read_text() for path in CODE.glob("*.py*") if path not in wanted})
    stale = [path for path in found if found[path] != wanted.get(path)]
    for path in stale:
        print(
            f"{path.relative_to(ROOT)}:1: not what proto/ says"
            + ("; run `make proto`" if check else ": written")
        )
        if not check and path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        elif not check:
            path.unlink()
    return int(check and bool(stale))


# --- code ---------------------------------------------------------------------------------------------------------


def compiled(folder: Path) -> FileDescriptorSet:
    """Compile the contract into ``folder``; what it says, with its comments."""
    descriptors = folder / "contract.binpb"
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{folder}" for kind in ("mypy", "mypy_grpc")]
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("opspawn/v1/*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs]
    command += ["--include_source_info", f"--descriptor_set_out={descriptors}", *sources]
    subprocess.run(command, cwd=HERE, check=True)
    return FileDescriptorSet.FromString(descriptors.read_bytes())


def generated(folder: Path) -> Iterator[Path]:
    for path in sorted((folder / "opspawn/v1").iterdir()):
        if not path.name.startswith("task_pb2_grpc"):  # it has no services
            yield path


def relocated(code: str) -> str:
    """``opspawn.v1`` is a package of the contract; in Python it is a part of ours."""
    return re.sub(r"^from opspawn\.v1 import", "from ops_core.protocol.v1 import", code, flags=re.MULTILINE)


# --- reference ----------------------------------------------------------------------------------------------------


def reference(described: FileDescriptorSet) -> str:
    """Services first, then what they take and give, as tables."""
    files = [(file, comments_of(file)) for file in described.file]
    parts = [text for file, comments in files for text in services(file, comments)]
    for file, comments in files:
        for number, message in enumerate(file.message_type):
            parts.append(message_part(message, (4, number), comments))
        for number, enum in enumerate(file.enum_type):
            rows = [
                [f"`{value.name}`", str(value.number), comments.get((5, number, 2, place), "")]
                for place, value in enumerate(enum.value)
            ]
            parts.append(part(enum.name, comments.get((5, number), ""), ["Value", "Number", ""], rows))
    return "\n\n".join(parts) + "\n"


def comments_of(file: FileDescriptorProto) -> Comments:
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
    }


def services(file: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for number, service in enumerate(file.service):
        rows = [
            [
                f"`{method.name}`",
                link(method.input_type),
                ("stream of " if method.server_streaming else "") + link(method.output_type),
                comments.get((6, number, 2, place), ""),
            ]
            for place, method in enumerate(service.method)
        ]
        title = f"{file.package}.{service.name}"
        yield part(title, comments.get((6, number), ""), ["Method", "Takes", "Gives", ""], rows)


def message_part(message: DescriptorProto, path: tuple[int, ...], comments: Comments) -> str:
    rows = [
        [f"`{field.name}`", kind_of(field, message), comments.get((*path, 2, place), "")]
        for place, field in enumerate(message.field)
    ]
    return part(message.name, comments.get(path, ""), ["Field", "Type", ""], rows)


def kind_of(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    if field.type_name.endswith("Entry"):
        entry = next(one for one in message.nested_type if field.type_name.endswith(f".{one.name}"))
        key, value = (kind_of(each, message) for each in entry.field)
        return f"map of {key} to {value}"
    kind = link(field.type_name) if field.type_name else KINDS[field.type]
    if field.proto3_optional:
        return f"optional {kind}"
    if field.HasField("oneof_index"):
        return f"{kind}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return f"repeated {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind


def link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(".opspawn.") else f"`{type_name.lstrip('.')}`"


def part(title: str, text: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"## {title}", "", text]
    if rows:
        lines += ["", *(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
