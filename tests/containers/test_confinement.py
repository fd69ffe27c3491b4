"""What a run's container can and cannot do, asked from inside; and which images it is made of at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import selfflow_bench
from selfflow_bench.containers import build, images, life
from selfflow_bench.containers.cleaning import clean, names
from selfflow_bench.containers.engine import connected
from selfflow_bench.containers.settings import CACHE, CODE, OUT, Surroundings, container_settings
from selfflow_bench.errors import FieldError, SuiteError
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.recipe import load_protocol, load_recipe
from tests.containers.conftest import PrivateEngine, Site, make_site

SOMEBODY = (4242, 4243)
WRITES = ("/x", "/usr/x", f"{CODE}/selfflow_bench/x", f"{CACHE}/x", "/in/spec.json", f"{OUT}/x", "/tmp/x")


@pytest.fixture(scope="module")
def spec(project: Places) -> RunSpec:
    return make_plan(project, "sana", tier="smoke", labels=["vanilla"]).runs[0]


@pytest.fixture(scope="module")
def site(engine: PrivateEngine, system_image: images.Pin, project: Places, tmp_path_factory: Any) -> Site:
    return make_site(tmp_path_factory.mktemp("confinement"), project, system_image)


def settings_of(site: Site, spec: RunSpec, command: list[str], user: tuple[int, int] | None = None) -> dict[str, Any]:
    """A run's container with another command."""
    folder = site.places.runs / spec.folder_name
    for made in (folder, site.places.cache, site.places.results):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text("{}")
    user = user or (os.getuid(), os.getgid())
    os.chown(folder, *user)
    around = Surroundings(
        image=site.image.id,
        folder=folder,
        cache=site.places.cache,
        code=Path(selfflow_bench.__file__).parent,
        user=user,
    )
    return {**container_settings(spec, around), "command": command}


@pytest.fixture(scope="module")
def probed(site: Site, spec: RunSpec) -> dict[str, Any]:
    """What a container found that runs as somebody else and tries everything."""
    results = site.places.results
    program = (Path(__file__).parent / "probe.py").read_text()
    command = ["python3", "-c", program, *WRITES, str(results.resolve() / "x")]
    with connected() as client:
        container = life.start(client, settings_of(site, spec, command, SOMEBODY))
        try:
            end = life.watch(container, lambda: None)
            assert end.exit_code == 0, container.logs()
        finally:
            life.stop(container, 1)
    folder = site.places.runs / spec.folder_name
    found: dict[str, Any] = json.loads((folder / "probe.json").read_text())
    found["owners"] = {(path.stat().st_uid, path.stat().st_gid) for path in (folder / "probe.json", folder / "x")}
    return found


def test_published_weights_are_read_only_in_a_container(site: Site, spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "models--some--model").mkdir()
    around = Surroundings(site.image.id, tmp_path, tmp_path, tmp_path, (0, 0), hub=tmp_path)
    made = container_settings(spec, around)
    (mount,) = (one for one in made["mounts"] if one["Target"] == made["environment"]["HF_HUB_CACHE"])
    assert mount["ReadOnly"]
    assert mount["Source"] == str(tmp_path.resolve())


def test_there_is_no_network(probed: dict[str, Any]) -> None:
    assert probed["connect"] in ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN")
    assert probed["interfaces"] == ["lo"]


def test_nothing_is_writable_but_the_output_and_a_temporary_folder(probed: dict[str, Any], site: Site) -> None:
    results = str(site.places.results.resolve() / "x")
    written = {path for path, answer in probed["write"].items() if answer == "done"}
    assert written == {f"{OUT}/x", "/tmp/x"}
    assert probed["write"]["/x"] == "EROFS"
    assert probed["write"][results] in ("ENOENT", "EROFS")
    assert not list(site.places.results.iterdir())
    assert probed["remount"] != 0


def test_it_runs_as_the_caller_who_owns_what_it_writes(probed: dict[str, Any]) -> None:
    assert (probed["uid"], probed["gid"]) == SOMEBODY
    assert probed["owners"] == {SOMEBODY}


def test_it_has_no_privilege_and_cannot_get_one(probed: dict[str, Any]) -> None:
    assert set(probed["capabilities"]) == {"0"}
    assert probed["no_new_privileges"] == "1"
    assert not probed["socket"]


def test_limits_are_the_protocol_s_numbers(probed: dict[str, Any], spec: RunSpec) -> None:
    assert probed["memory_limit"] == spec.conditions.budget.memory_mb * 2**20
    assert probed["environment"]["OMP_NUM_THREADS"] == str(spec.conditions.training.threads)


def test_the_host_s_environment_stays_outside(probed: dict[str, Any]) -> None:
    assert "DOCKER_HOST" in os.environ
    assert "DOCKER_HOST" not in probed["environment"]
    assert probed["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_gpu_without_the_nvidia_runtime_is_refused_with_a_remedy(site: Site, spec: RunSpec) -> None:
    settings = settings_of(site, spec, ["true"])
    around = Surroundings(site.image.id, site.places.runs, site.places.cache, site.places.runs, (0, 0), gpus=("GPU-1",))
    requests = container_settings(spec, around)["device_requests"]
    assert requests[0]["DeviceIDs"] == ["GPU-1"]
    with connected() as client, pytest.raises(SuiteError, match="install nvidia-container-toolkit"):
        life.start(client, {**settings, "device_requests": requests})
    with connected() as client:
        assert not names(client, site.places.runs), "what could not start is not left behind"


def test_an_image_that_somebody_changed_is_refused(site: Site, spec: RunSpec) -> None:
    image, pin = site.image, site.pin
    with connected() as client:
        build.verify(client, image)
        container = client.containers.create(image.id, command=["true"])
        repository, _, tag = pin.tag.rpartition(":")
        try:
            changed = container.commit(repository=repository, tag=tag)
            with pytest.raises(SuiteError, match=r"but sha256:[0-9a-f]+ is pinned"):
                image.check(client)
        finally:
            container.remove(force=True)
            client.images.get(pin.id).tag(repository, tag)
            client.images.remove(changed.id, force=True)
        image.check(client)


def test_an_image_on_another_base_than_the_protocol_names_is_refused(site: Site, spec: RunSpec) -> None:
    other = spec.conditions.model_copy(update={"image": f"debian@sha256:{'0' * 64}"})
    folder = site.places.runs / spec.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(SuiteError, match=r"image = 'debian@sha256:0+', but .* is built on .*images build cpu"):
        site.executor().sitting(
            spec.model_copy(update={"conditions": other}), folder, site.places.cache, lambda event: None
        )
    with connected() as client:
        assert not names(client, site.places.runs)


def test_missing_and_outdated_images_are_refused(site: Site, spec: RunSpec, tmp_path: Path) -> None:
    missing = "sha256:" + "0" * 64
    with connected() as client:
        with pytest.raises(life.ImageMissingError, match="selfflow-bench images build"):
            life.start(client, {**settings_of(site, spec, ["true"]), "image": missing})
        gone = images.Image("cpu", missing, "selfflow-bench:none", "base", site.pin.made_of)
        with pytest.raises(life.ImageMissingError, match="selfflow-bench images build cpu"):
            gone.check(client)
    images.pin(tmp_path, "cpu", site.pin.model_copy(update={"made_of": "0" * 64}))
    with pytest.raises(SuiteError, match=r"another Dockerfile or requirements\.lock"):
        images.pinned(images.project(), tmp_path, "cpu")


def test_clean_removes_this_work_folder_s_containers_and_no_others(
    site: Site, spec: RunSpec, system_image: images.Pin, project: Places, tmp_path: Path
) -> None:
    other_site = make_site(tmp_path / "other", project, system_image)
    other_spec = spec.model_copy(update={"seed_index": 1})
    sleep = ["sleep", "600"]
    with connected() as client:
        stranger = client.containers.run(site.image.id, command=sleep, detach=True, network_mode="none")
        try:
            for place, wanted in ((site, spec), (site, other_spec), (other_site, spec)):
                life.start(client, settings_of(place, wanted, sleep))
            assert names(client, site.places.runs) == sorted([spec.folder_name, other_spec.folder_name])
            with pytest.raises(FieldError, match="more than one run begins so"):
                clean(client, site.places.runs, "sana")
            assert clean(client, site.places.runs, spec.folder_name, grace=1) == [spec.folder_name]
            assert names(client, site.places.runs) == [other_spec.folder_name]
            assert clean(client, site.places.runs, grace=1) == [other_spec.folder_name]
            assert names(client, other_site.places.runs) == [spec.folder_name]
            stranger.reload()
            assert stranger.status == "running"
        finally:
            clean(client, other_site.places.runs, grace=1)
            stranger.remove(force=True)


def test_the_lock_file_is_current() -> None:
    root = images.project()
    assert images.stale(root) == []
    dockerfile = (root / images.INGREDIENTS[0]).read_text()
    assert images.read_lock(root).images["cpu"].base in dockerfile, "the base of a build without arguments"


def test_reference_protocols_name_the_locked_base_by_digest(project: Places) -> None:
    named = {}
    for path in project.recipes.glob("*/v*.toml"):
        recipe = load_recipe(project.recipes, path.parent.name)[1]
        if "reference" in recipe.tiers:
            protocol = load_protocol(project.recipes, recipe.tiers["reference"].protocol)[1]
            named[recipe.tiers["reference"].protocol] = protocol.image
    assert len(named) >= 5
    assert set(named.values()) == {images.read_lock(images.project()).images["cuda"].base}
