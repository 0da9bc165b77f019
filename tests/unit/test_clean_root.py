"""How the image's steps are laid out for a clean root file system; to take them needs root."""

from pathlib import Path

from scripts.deploy.clean_root import Root, chain


def test_a_target_begins_with_the_stage_that_all_others_stand_on() -> None:
    steps = chain("cpu")
    assert steps[0][0] == "FROM"
    assert steps[0][1].startswith("python:")
    instructions = [instruction for instruction, _ in steps]
    assert instructions.count("FROM") == 3
    assert dict(steps)["USER"] == "10001:10001"
    packages, project = (
        next(at for at, (_, text) in enumerate(steps) if f"setup.sh {part}" in text)
        for part in ("packages", "project")
    )
    assert packages < project


def test_variables_are_what_the_steps_say(tmp_path: Path) -> None:
    root = Root(tmp_path, [])
    for step in (
        ("ARG", "UNUSED"),
        ("ARG", "VERSION=0.1.0 REVISION=unknown"),
        ("ENV", "PATH=/opt/x:$PATH LANG=C"),
        ("WORKDIR", "/opt/pairloop"),
        ("COPY", "pyproject.toml ."),
    ):
        root.step(*step)
    assert root.arguments["VERSION"] == "0.1.0"
    assert "playwright" in root.arguments["UNUSED"]
    assert "PYTHON" not in root.arguments  # no stage names it
    assert root.environment["PATH"].startswith("/opt/x:/usr/")
    assert (tmp_path / "opt" / "pairloop" / "pyproject.toml").is_file()
