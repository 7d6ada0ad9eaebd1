"""Machine code in numba's cache is that of today's sources."""

from pathlib import Path

from numba.core import config

from infra.minicarla.render import kernels


def test_kernels_of_other_sources_are_not_found(tmp_path, monkeypatch):
    """Numba stamps a cached function by its own file alone: a new helper or named tuple elsewhere went unseen."""
    folder = tmp_path / "minicarla" / "render"
    folder.mkdir(parents=True)
    for source in (*kernels.HERE.glob("*.py"), kernels.HERE.parent / "scenery.py"):
        (folder.parent / source.relative_to(kernels.HERE.parent)).write_bytes(source.read_bytes())
    monkeypatch.setattr(kernels, "HERE", folder)
    places = []
    for changed in (None, folder / "rays.py", folder.parent / "scenery.py"):
        if changed:
            changed.write_text(changed.read_text() + "\n# changed\n")
        kernels.sources_digest.cache_clear()
        with kernels.cache_of_these_sources():
            places.append(config.CACHE_DIR)
    kernels.sources_digest.cache_clear()
    assert len(set(places)) == 3


def test_a_kernel_is_cached_there_and_the_setting_is_left_alone():
    before = config.CACHE_DIR
    kernel = kernels.compiled(lambda number: number + 1)
    assert kernel(1) == 2
    assert f"kernels-{kernels.sources_digest()}" in Path(kernel.stats.cache_path).parts
    assert before == config.CACHE_DIR
