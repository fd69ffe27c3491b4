"""Commands about containers: doctor, images, clean. The engine's SDK is imported once one of them is asked for."""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
from pathlib import Path

from rich.markup import escape

from selfflow_bench.commands.parser import Commands, out
from selfflow_bench.errors import FieldError, SuiteError
from selfflow_bench.places import Places


def add_to(commands: Commands) -> None:
    """Add doctor, images and clean."""
    doctor = commands.add("doctor", _doctor, "look this machine over: engine, GPU, disk, images, data, weights, clock")
    doctor.add_argument("--tier", choices=("smoke", "micro", "reference"), default="micro", help="what it is to run")
    images = commands.add("images", _images, "build, pin and check the images that runs are made in")
    images.add_argument("what", choices=("build", "verify", "lock"), help="lock: write what images are built from")
    images.add_argument("targets", nargs="*", metavar="TARGET", help="cpu or cuda (default: cpu; verify: all pinned)")
    images.add_argument("--base", help="an image that the engine has, instead of the lock file's base")
    images.add_argument("--network", help="the build's network, such as host")
    images.add_argument("--certificates", type=Path, help="a CA bundle that the build needs to reach its package index")
    images.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="such as PIP_INDEX_URL")
    images.add_argument(
        "--mount-packages",
        action="store_true",
        help="for development: build the system only, and mount this Python's packages into containers; recorded so",
    )
    images.add_argument("--check", action="store_true", help="lock: say what is not current, write nothing")
    clean = commands.add("clean", _clean, "stop and remove containers of this work folder's runs; checkpoints stay")
    which = clean.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="of one run")
    which.add_argument("--all", action="store_true", help="of all runs")


def _doctor(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.containers.doctor import examine

    found = examine(places.work, reference=chosen.tier == "reference")
    if chosen.json:
        print(json.dumps(found.as_dict(), indent=1))
        return found.exit_code
    marks = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
    for finding in found.findings:
        line = escape(f"{finding.name}: {finding.text}")
        out.print(f"{marks[finding.level]} {line}", highlight=False, soft_wrap=True)
        if finding.remedy:
            out.print(f"        {escape(finding.remedy)}", highlight=False, soft_wrap=True)
    return found.exit_code


def _images(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.containers import build, images
    from selfflow_bench.containers.engine import connected

    root = images.project()
    for target in chosen.targets:
        if target not in images.TARGETS:
            known = f"There are: {', '.join(images.TARGETS)}."
            raise FieldError("command line", "TARGET", target, "no such target", known)
    if chosen.what == "lock":
        return _lock(root, check=chosen.check)
    with connected() as client:
        if chosen.what == "verify":
            wanted = chosen.targets or list(images.read_pins(places.work))
            if not wanted:
                raise SuiteError("this work folder has no image. Build one: selfflow-bench images build cpu")
            found = [images.pinned(root, places.work, target) for target in wanted]
            for image in found:
                build.verify(client, image)
                if not chosen.json:
                    out.print(f"{image.target}: {image.reference} is {image.id}", highlight=False, soft_wrap=True)
            if chosen.json:
                print(json.dumps({image.target: {"id": image.id, **image.facts()} for image in found}, indent=1))
            return 0
        for target in chosen.targets or ["cpu"]:
            made = build.build(
                client,
                root,
                target,
                base=chosen.base,
                packages=Path(sysconfig.get_path("purelib")) if chosen.mount_packages else None,
                certificates=chosen.certificates,
                network=chosen.network,
                arguments=_arguments(chosen.build_arg),
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
            images.pin(places.work, target, made)
            if chosen.json:
                print(made.model_dump_json())
            else:
                out.print(f"{target}: {made.tag} is {made.id}, pinned", highlight=False, soft_wrap=True)
    return 0


def _lock(root: Path, *, check: bool) -> int:
    from selfflow_bench.containers import images

    if check:
        found = images.stale(root)
        if found:
            raise SuiteError("; ".join(found) + ". Write it: selfflow-bench images lock")
        return 0
    changed = images.update_lock(root)
    out.print(f"{images.LOCK_FILE}: {', '.join(changed) or 'nothing'} changed", highlight=False)
    return 0


def _arguments(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise FieldError("command line", "--build-arg", text, "has no value", "Write it as NAME=VALUE.")
        found[name] = value
    return found


def _clean(chosen: argparse.Namespace, places: Places) -> int:
    from selfflow_bench.containers.cleaning import clean
    from selfflow_bench.containers.engine import connected

    with connected() as client:
        removed = clean(client, places.runs, chosen.run)
    if chosen.json:
        print(json.dumps(removed))
    else:
        out.print(f"Removed the containers of: {', '.join(removed) or 'no run'}", highlight=False, soft_wrap=True)
    return 0
