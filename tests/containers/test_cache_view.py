from __future__ import annotations

from pathlib import Path

from selfflow_bench.containers.cache_view import open_view, remove_view, take_over


def cache_with(folder: Path) -> Path:
    (folder / "prepared").mkdir(parents=True)
    (folder / "prepared" / "latents").write_text("latents")
    (folder / "untrained").mkdir()
    (folder / "features.npz").write_text("features")
    (folder / ".prepared.lock").touch()
    return folder


def test_a_view_shows_the_cache_and_keeps_it_from_writers(tmp_path: Path) -> None:
    cache, view = cache_with(tmp_path / "cache"), tmp_path / "run" / "cache"
    open_view(cache, view, str(cache))
    assert (view / "prepared" / "latents").read_text() == "latents"
    assert (view / "features.npz").is_symlink()
    assert not (view / ".prepared.lock").exists()
    new = view / "new"
    new.write_text("changed")
    new.replace(view / "features.npz")
    assert (cache / "features.npz").read_text() == "features"
    open_view(cache, view, str(cache))
    assert (view / "features.npz").read_text() == "features", "made anew"
    remove_view(view)
    assert (cache / "prepared" / "latents").read_text() == "latents", "what lies behind the links stays"


def test_what_a_run_adds_is_taken_over_and_nothing_else(tmp_path: Path) -> None:
    cache, view = cache_with(tmp_path / "cache"), tmp_path / "run" / "cache"
    open_view(cache, view, str(cache))
    (view / "untrained" / "a.json").write_text("a")
    (view / "other").mkdir()
    (view / "other" / "latents").write_text("other")
    (view / ".half.partial").mkdir()
    (view / "features.npz").unlink()
    (view / "features.npz").write_text("another's")
    (view / "planted").symlink_to("/etc/hostname")
    (view / "planted-inside").mkdir()
    (view / "planted-inside" / "link").symlink_to("/etc/hostname")
    take_over(view, cache)
    assert (cache / "untrained" / "a.json").read_text() == "a"
    assert (cache / "other" / "latents").read_text() == "other"
    assert (cache / "features.npz").read_text() == "features", "never over another"
    assert sorted(path.name for path in cache.iterdir()) == [
        ".prepared.lock",
        "features.npz",
        "other",
        "prepared",
        "untrained",
    ]
