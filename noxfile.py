"""Sessions of Self-Flow Bench. ``nox -l`` lists them; each sets up what it needs, from the one lock file."""

import sys
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

LOCK = "requirements.lock"
YAML_STYLE = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"


def install(session: nox.Session) -> None:
    """Everything from the lock, by hash, then the project itself. The lock is whole, so nothing is resolved.

    Reused environments are left alone while the lock is the one they were made from.
    """
    stamp = Path(session.create_tmp()).parent / "installed.lock"
    wanted = Path(LOCK).read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        session.install("--no-deps", "--require-hashes", "-r", LOCK)
        session.install("--no-deps", "--no-build-isolation", "-e", ".")
        stamp.write_text(wanted, encoding="utf-8")


# Ctrl-C must leave a run the time to write its checkpoint, and its container to be removed.
INTERRUPT_SECONDS, TERMINATE_SECONDS = 180.0, 60.0


@nox.session
def bench(session: nox.Session) -> None:
    """Train, evaluate, compare and record: ``nox -s bench -- sana [--seeds N] [--methods ...] [--tier smoke]``."""
    install(session)
    if not session.posargs:
        if session.run("selfflow-bench", "list") is None:
            return  # --install-only: nothing was asked for but the environment
        session.log("name a recipe: nox -s bench -- sana")
        sys.exit(2)  # nox itself would make it 1
    session.run(
        "selfflow-bench",
        "run",
        *session.posargs,
        interrupt_timeout=INTERRUPT_SECONDS,
        terminate_timeout=TERMINATE_SECONDS,
    )


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite but what is marked "once"; arguments go to pytest."""
    install(session)
    _pytest(session, "not once")


@nox.session(default=False)
def tests_once(session: nox.Session) -> None:
    """The tests marked "once": models compiled, further recipes run whole. CI runs them too."""
    install(session)
    _pytest(session, "once")


def _pytest(session: nox.Session, marked: str) -> None:
    session.run("pytest", "-m", marked, "--numprocesses=auto", "--dist=worksteal", *(session.posargs or ["tests"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports in one direction, and generated files that must be current."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("hadolint", "docker/Dockerfile")
    session.run("shellcheck", "--external-sources", ".ci/run", *(str(path) for path in sorted(Path("ci").glob("*.sh"))))
    session.run("yamllint", "--strict", "--config-data", YAML_STYLE, "ci")
    workflows = [str(path) for path in sorted(Path("ci/workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--no-progress", "--persona=pedantic", *workflows)
    session.run("selfflow-bench", "images", "lock", "--check")
    session.run("selfflow-bench", "lock", "--check")
    session.run("selfflow-bench", "leaderboard", "--check")
    session.run("selfflow-bench", "report", "--check")
    session.run("selfflow-bench", "verify")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    install(session)
    session.run("mypy")


@nox.session(default=False)
def images(session: nox.Session) -> None:
    """The images that runs are made in: ``nox -s images -- build|verify [cpu|cuda]``."""
    install(session)
    session.run("selfflow-bench", "images", *(session.posargs or ["verify"]))


@nox.session(default=False)
def check(session: nox.Session) -> None:
    """The regression gate: ``nox -s check [-- --bands]``. nox makes every failure 1; the command itself says which."""
    install(session)
    session.run("selfflow-bench", "check", *session.posargs)


@nox.session(default=False)
def speed(session: nox.Session) -> None:
    """The cost of a Self-Flow step, counted and timed, into results/speed.md; ``-- sana`` for one family alone."""
    install(session)
    session.run("selfflow-bench", "speed", *session.posargs)


@nox.session(default=False)
def data(session: nox.Session) -> None:
    """Rebuild an embedded data set from its packages (needs npm, or apt for notes): ``nox -s data -- pictures``."""
    install(session)
    session.run("python", "-m", "selfflow_bench.data.build", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Resolve the dependencies anew into the lock file, for Python 3.11 and 3.12; ``-- --upgrade`` for newer ones."""
    session.install("uv")
    extras = [flag for extra in ("train", "containers", "data", "dev") for flag in ("--extra", extra)]
    session.run(
        "uv",
        "pip",
        "compile",
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-annotate",
        "--no-header",
        "--no-emit-index-url",
        *extras,
        *session.posargs,
        "pyproject.toml",
        f"--output-file={LOCK}",
    )
