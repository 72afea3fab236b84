"""The steps of a Dockerfile, carried out one by one in folders that stand for images: no container engine is needed.

It knows the instructions that ours use, and refuses the others. It needs root, unshare and chroot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from dockerfile_parse import DockerfileParser

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRIVATE = ["unshare", "--mount", "--pid", "--fork"]
_RUN = r"""
set -e
root=$1 folder=$2 certificates=$3 command=$4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
touch "$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount -t tmpfs tmpfs "$root/run"
cp "$certificates" "$root/run/certificates"
exec chroot "$root" /bin/sh -c "cd '$folder'; exec /bin/sh -c \"\$1\"" sh "$command"
"""
_CONTAIN = r"""
set -e
root=$1 user=$2 group=$3 folder=$4 log=$5
shift 5
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for one in null zero full random urandom tty; do
  touch "$root/dev/$one"
  mount --bind "/dev/$one" "$root/dev/$one"
done
ln -s /proc/self/fd "$root/dev/fd"
touch "$log" "$root/dev/termination-log"
chmod 666 "$log"
mount --bind "$log" "$root/dev/termination-log"
mount -o remount,ro "$root/dev"
mount --rbind /run "$root/run"
mount -o remount,ro "$root/run"
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


class Instruction(NamedTuple):
    """One line of a Dockerfile, its continuations included."""

    name: str
    text: str


class Image(NamedTuple):
    """A root directory, and how its containers are started."""

    root: Path
    environment: dict[str, str]
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def instructions_of(dockerfile: Path) -> list[Instruction]:
    """What stands in a Dockerfile, without comments."""
    with open(dockerfile, "rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [Instruction(one["instruction"], one["value"]) for one in structure if one["instruction"] != "COMMENT"]


def build(dockerfile: Path, context: Path, bases: dict[str, Image], folder: Path) -> Image:
    """The image of its last stage. `bases`: what stands for the images that it names. Raises CalledProcessError."""
    arguments: dict[str, str] = {}
    stages: dict[str, Image] = {}
    image: Image | None = None
    for name, text in instructions_of(dockerfile):
        text = _filled_in(text, arguments | (image.environment if image else {}))
        words = text.split()
        if name == "ARG":
            key, _, value = text.partition("=")
            arguments[key] = value
        elif name == "FROM":
            stage = words[2] if len(words) == 3 and words[1].upper() == "AS" else f"stage {len(stages)}"
            base = stages.get(words[0]) or bases[words[0]]
            root = folder / stage.replace(" ", "-")
            subprocess.run(["cp", "-a", "--reflink=auto", str(base.root), str(root)], check=True)
            image = stages[stage] = base._replace(root=root)
        else:
            assert image is not None, f"{name} before FROM"
            image = _carried_out(image, name, text, context, stages)
            stages[stage] = image
    assert image is not None
    return image


def _carried_out(image: Image, name: str, text: str, context: Path, stages: dict[str, Image]) -> Image:
    if name == "RUN":
        _run(image, text)
    elif name == "COPY":
        _copy(image, text.split(), context, stages)
    elif name == "ENV":
        key, _, value = text.partition("=")
        image = image._replace(environment=image.environment | {key: value})
    elif name == "WORKDIR":
        (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        image = image._replace(folder=text)
    elif name == "USER":
        image = image._replace(user=text)
    elif name == "ENTRYPOINT":
        image = image._replace(entrypoint=tuple(json.loads(text)), command=())
    elif name == "CMD":
        image = image._replace(command=tuple(json.loads(text)))
    else:
        raise AssertionError(f"{name} is not known here")
    return image


def _filled_in(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def _run(image: Image, command: str) -> None:
    assert image.user == "0:0", "RUN as another user is not known here"
    certificates = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    ours = {name: value for name, value in os.environ.items() if re.fullmatch(r"PIP_\w+|\w+_proxy", name, re.I)}
    ours |= {"PIP_CERT": "/run/certificates", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run(
        [*_PRIVATE, "sh", "-c", _RUN, "sh", str(image.root), image.folder, certificates, command],
        env={"PATH": _PATH, "HOME": "/root", **ours, **image.environment},
        check=True,
    )


def _copy(image: Image, words: list[str], context: Path, stages: dict[str, Image]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    into = image.root / target.lstrip("/")
    assert len(names) == 1 or target.endswith("/"), "several files go into a folder"
    for name in names:
        one = source / name.lstrip("/")
        if one.is_dir():
            ignored = shutil.ignore_patterns("__pycache__") if source == context else None
            shutil.copytree(one, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            place = into / one.name if target.endswith("/") else into
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, place)


def in_container(image: Image, termination_log: Path) -> list[str]:
    """What runs a command as a container of the image would, in namespaces that are made already: see Pod.

    The root is read-only, nothing else can be written but `termination_log`, and there are no capabilities.
    """
    user, _, group = image.user.partition(":")
    return ["sh", "-c", _CONTAIN, "sh", str(image.root), user, group, image.folder, str(termination_log)]


def size(root: Path) -> int:
    """Bytes of its files."""
    return sum(one.lstat().st_size for one in root.rglob("*") if one.is_file() and not one.is_symlink())
