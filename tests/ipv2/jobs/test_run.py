"""Jobs: what is done, what a crash leaves, what is never touched."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from common.errors import Incomplete, UserError
from common.folder_lock import hold_folder
from common.version import COMMIT
from ipv2.ct_io import Skipped
from ipv2.jobs import staging
from ipv2.jobs.job import Job, Target, fitting_name
from ipv2.jobs.records import Terms
from ipv2.jobs.run import (
    Destination,
    Tally,
    conclude,
    run_jobs,
)

TERMS = {"task": "copy 1", "strength": (1, 2)}
GRANTED = {"config.data.gaps": "allow"}


def job_of(folder, name, *results, series=False):
    """A job whose results lie in one folder each, as a pair's do."""
    out = folder / "out"
    paths = [out / result for result in results] or [out / f"{name}.out"]
    return Job(
        name=name,
        sources=(folder / "in" / name,),
        targets=tuple(Target(path=path, series=series) for path in paths),
        record=out / f"{name}.json",
        slices=1,
    )


def run(jobs, make, *, overwrite=False, leave=None, **terms):
    folder = jobs[0].record.parent
    wanted = Terms(TERMS | terms, leave or {})
    to = Destination(folder=folder, section="config.x", overwrite=overwrite)
    return run_jobs("copy", jobs, make, lambda job: wanted, to)


def writes(text="made", names=("1", "2")):
    """Writes a file to every place, or files of these names to every folder."""

    def make(job, work):
        for target, place in zip(job.targets, work.places, strict=True):
            assert place.name == target.path.name and not place.exists()
            place.parent.mkdir(parents=True)
            if target.series:
                place.mkdir()
                for name in names:
                    (place / name).write_text(text)
            else:
                for file in target.files:
                    place.with_name(file.name).write_text(text)
        work.count(1)
        return {"by": text}

    return make


def tree(folder):
    """Every file below a folder, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def results(folder):
    """The same without records."""
    return {k: v for k, v in tree(folder / "out").items() if not k.endswith(".json")}


def put(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_results_that_are_there_stay_and_failures_are_listed(tmp_path, caplog):
    jobs = [job_of(tmp_path, name) for name in "abc"]

    def make(job, work):
        if job.name == "b":
            raise UserError("b is broken")
        return writes()(job, work)

    assert run(jobs, make) == (2, 0, 1)
    assert "b is broken" in caplog.text
    assert run(jobs, writes("again")) == (1, 2, 0)
    assert results(tmp_path) == {"a.out": "made", "b.out": "again", "c.out": "made"}
    assert json.loads(jobs[0].record.read_text()) == {
        "asked": {"task": "copy 1", "strength": [1, 2]},
        "leave": {},
        "files": {"a.out": 4},
        "made": {"commit": COMMIT, "by": "made"},
    }
    assert not list((tmp_path / "out").glob(".*"))


def test_an_interruption_leaves_nothing(tmp_path):
    def stop(job, work):
        writes()(job, work)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run([job_of(tmp_path, "a")], stop)
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["a.out", "a.json"])
@pytest.mark.parametrize("content", ["mine", '{"my": "own"}', ""])
def test_files_of_others_are_replaced_with_overwrite_only(tmp_path, name, content):
    jobs = [job_of(tmp_path, "b"), job_of(tmp_path, "a")]
    put(tmp_path / "out" / name, content)
    said = r"without a a\.json" if name == "a.out" else r"a\.json: not a record"
    with pytest.raises(UserError, match=rf"(?s){said}.*config\.x\.overwrite=True"):
        run(jobs, writes())
    assert tree(tmp_path / "out") == {name: content}
    assert run(jobs, writes(), overwrite=True) == (2, 0, 0)
    assert results(tmp_path) == {"a.out": "made", "b.out": "made"}


def test_the_data_beside_a_header_is_a_result_too(tmp_path):
    job = job_of(tmp_path, "a", "a.mhd")
    put(tmp_path / "out/a.raw")
    with pytest.raises(UserError, match=r"a\.raw: is there, without"):
        run([job], writes())
    assert tree(tmp_path / "out") == {"a.raw": "mine"}
    assert run([job], writes(), overwrite=True) == (1, 0, 0)
    assert results(tmp_path) == {"a.mhd": "made", "a.raw": "made"}
    (tmp_path / "out/a.raw").unlink()
    assert run([job], writes("again")) == (1, 0, 0)
    assert results(tmp_path) == {"a.mhd": "again", "a.raw": "again"}


def test_other_terms_are_refused_with_every_difference(tmp_path):
    jobs = [job_of(tmp_path, name) for name in "abcdefghijklmn"]
    run(jobs, writes())
    before = tree(tmp_path)
    with pytest.raises(UserError) as refused:
        run(jobs, writes("again"), task="copy 2", strength=(1, 3), more="x")
    message = str(refused.value)
    assert "task: 'copy 1' there, 'copy 2' asked for" in message
    assert "strength: [1, 2] there, [1, 3] asked for" in message
    assert "more: 'not stated' there, 'x' asked for" in message
    assert message.count("was made otherwise") == 10 and "... and 4 more" in message
    assert message.endswith("--config.x.overwrite=True.")
    assert tree(tmp_path) == before


def test_leave_that_was_not_needed_is_no_difference(tmp_path):
    """The corrected command goes on with what the first one made."""
    jobs = [job_of(tmp_path, "a"), job_of(tmp_path, "b")]
    run(jobs[:1], writes())
    assert run(jobs, writes("again"), leave=GRANTED) == (1, 1, 0)
    with pytest.raises(UserError, match=r"gaps: 'allow' there, 'not stated' asked"):
        run(jobs, writes())
    with pytest.raises(UserError, match=r"gaps: 'allow' there, 'x' asked"):
        run(jobs, writes(), leave={"config.data.gaps": "x"})


def test_a_result_that_is_gone_is_made_again_and_a_changed_one_is_not(tmp_path):
    job = job_of(tmp_path, "a", "x/a", "y/a")
    run([job], writes())
    (tmp_path / "out/x/a").unlink()
    assert run([job], writes("again")) == (1, 0, 0)
    assert results(tmp_path) == {"x/a": "again", "y/a": "again"}
    put(tmp_path / "out/y/a", "edited by hand")
    with pytest.raises(UserError, match=r"y/a: is not what a\.json says was written"):
        run([job], writes())
    assert results(tmp_path) == {"x/a": "again", "y/a": "edited by hand"}
    # Where nothing is left of it, an old record stands in nobody's way.
    (tmp_path / "out/x/a").unlink()
    (tmp_path / "out/y/a").unlink()
    assert run([job], writes(), task="copy 2") == (1, 0, 0)


@pytest.mark.parametrize("overwrite", [False, True])
def test_slices_that_are_not_ours_stay_in_their_folder(tmp_path, overwrite):
    job = job_of(tmp_path, "a", "a", series=True)
    put(tmp_path / "in/a/1")
    put(tmp_path / "out/a/9")
    with pytest.raises(UserError, match=r"a/9: is "):
        run([job], writes(), overwrite=overwrite)
    assert tree(tmp_path / "out") == {"a/9": "mine"}


def test_a_series_is_replaced_by_its_successor_alone(tmp_path):
    job = job_of(tmp_path, "a", "a", series=True)
    for name in "123":
        put(tmp_path / "in/a" / name)
        put(tmp_path / "out/a" / name)
    with pytest.raises(UserError, match=r"a/1: is there, without a a\.json"):
        run([job], writes())
    # One slice of the source is not written, and somebody's slice has its name.
    assert run([job], writes(), overwrite=True) == (0, 0, 1)
    assert results(tmp_path) == {"a/1": "mine", "a/2": "mine", "a/3": "mine"}
    assert run([job], writes(names="123"), overwrite=True) == (1, 0, 0)
    # Ours are replaced whatever their names, and none of them is left over.
    assert run([job], writes("new", names="45"), overwrite=True) == (1, 0, 0)
    assert results(tmp_path) == {"a/4": "new", "a/5": "new"}
    # What came in later is not the series', but a reader would take it for it.
    put(tmp_path / "out/a/9")
    assert run([job], writes()) == (0, 1, 0)
    with pytest.raises(UserError, match="a/9: is in the way"):
        run([job], writes(), overwrite=True)


def test_results_within_the_folder_of_a_series_are_left_alone(tmp_path):
    outer = job_of(tmp_path, "a", "a", series=True)
    inner = job_of(tmp_path, "b", "a/b", series=True)
    beside = job_of(tmp_path, "c", "a/c.nii")
    put(tmp_path / "out/a/.DS_Store")
    assert run([inner, beside], writes("first")) == (2, 0, 0)
    assert run([outer, inner, beside], writes()) == (1, 2, 0)
    wanted = {"a/1": "made", "a/2": "made", "a/.DS_Store": "mine"}
    wanted |= {"a/b/1": "first", "a/b/2": "first", "a/c.nii": "first"}
    assert results(tmp_path) == wanted
    jobs = [outer, inner, beside]
    assert run(jobs, writes("new", names="34"), overwrite=True) == (3, 0, 0)
    assert results(tmp_path) == {
        **{"a/3": "new", "a/4": "new", "a/.DS_Store": "mine"},
        **{"a/b/3": "new", "a/b/4": "new", "a/c.nii": "new"},
    }


def test_what_was_written_under_another_name_goes(tmp_path):
    run([job_of(tmp_path, "a", "a.nii")], writes())
    assert run([job_of(tmp_path, "a", "a.mha")], writes("new"), overwrite=True).done
    assert results(tmp_path) == {"a.mha": "new"}


@pytest.mark.parametrize(
    "name", ["{root}/mine", "../mine", "mine", "b.out", "x/../../mine", "", "."]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_record_of_files_that_are_not_the_job_s_is_none(tmp_path, name, overwrite):
    jobs = [job_of(tmp_path, "a"), job_of(tmp_path, "b")]
    run(jobs, writes("made"))
    for place in (tmp_path / "mine", tmp_path / "out/mine"):
        put(place, "made")
    record = json.loads(jobs[0].record.read_text())
    record["files"][name.format(root=tmp_path)] = 4
    put(jobs[0].record, json.dumps(record))
    before = tree(tmp_path)
    if overwrite:
        assert run(jobs[:1], writes("new"), overwrite=True) == (1, 0, 0)
        assert results(tmp_path) == {"a.out": "new", "b.out": "made", "mine": "made"}
        assert (tmp_path / "mine").read_text() == "made"
    else:
        with pytest.raises(UserError, match=r"a\.json: not a record of a task"):
            run(jobs, writes())
        assert tree(tmp_path) == before


@pytest.mark.parametrize("size", ["4", 4.0, True, None, [4]])
def test_a_record_of_sizes_that_are_none_is_none(tmp_path, size):
    job = job_of(tmp_path, "a")
    run([job], writes())
    record = json.loads(job.record.read_text()) | {"files": {"a.out": size}}
    put(job.record, json.dumps(record))
    with pytest.raises(UserError, match=r"a\.json: not a record of a task"):
        run([job], writes())


ENTRY = ".making/0123456789abcdef"


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (".making/mine", "mine"),
        (".making/notes/moves.json", "[]"),
        (".making/0123456789abcdeF/moves.json", "[]"),
        (f"{ENTRY}/notes", "mine"),
        (f"{ENTRY}/moves.json", "mine"),
        (f"{ENTRY}/moves.json", "{}"),
        (f"{ENTRY}/moves.json", '["ab"]'),
        (f"{ENTRY}/moves.json", '[["new/0/a", null]]'),
        (f"{ENTRY}/moves.json", '[["new/0/a", 1]]'),
        (f"{ENTRY}/moves.json", '[["new/0/a", "../mine"]]'),
        (f"{ENTRY}/moves.json", '[["new/0/a", "{root}/mine"]]'),
        (f"{ENTRY}/moves.json", '[["../../mine", "a.out"]]'),
        (f"{ENTRY}/moves.json/x", "mine"),
        (".making", "mine"),
    ],
)
def test_files_that_no_command_left_are_named_and_stay(tmp_path, place, content):
    put(tmp_path / "mine")
    put(tmp_path / "out/a.out")
    put(tmp_path / "out" / place, content.replace("{root}", str(tmp_path)))
    before = tree(tmp_path)
    said = r"out/\.making.*: no command of this software left it"
    with pytest.raises(UserError, match=said):
        run([job_of(tmp_path, "a")], writes(), overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("link", [".making", ENTRY])
def test_a_link_is_not_what_a_command_left(tmp_path, link):
    put(tmp_path / "mine/new/0/a")
    (tmp_path / "out" / link).parent.mkdir(parents=True)
    (tmp_path / "out" / link).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="no command of this software left it"):
        run([job_of(tmp_path, "a")], writes())
    assert (tmp_path / "mine/new/0/a").exists() and (tmp_path / "out" / link).exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("series", "places"),
    [(True, ["a"]), (False, ["a/x"]), (False, ["a.json/x"])],
)
def test_a_folder_never_makes_way_for_a_file_nor_a_file_for_a_folder(
    tmp_path, overwrite, series, places
):
    job = job_of(tmp_path, "a", "a", series=series)
    for place in places:
        put(tmp_path / "out" / place)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"out/a"):
        run([job], writes(), overwrite=overwrite)
    assert tree(tmp_path) == before


def fail_at(monkeypatch, ending, error, *, times=1):
    """Moving a file to a place of this name fails, so many times."""
    replace, left = os.replace, [error] * times

    def fails(source, target):
        if str(target).endswith(ending) and ".making" not in str(target) and left:
            raise left.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("ending", ["x/a", "y/a", "z/a", "a.json"])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "stop"])
def test_several_results_appear_together_or_not_at_all(
    tmp_path, monkeypatch, caplog, ending, error
):
    jobs = [job_of(tmp_path, n, f"x/{n}", f"y/{n}", f"z/{n}") for n in ("b", "a")]
    run(jobs[:1], writes())
    put(tmp_path / "out/y/a")
    before = tree(tmp_path / "out")
    with monkeypatch.context() as patch:
        fail_at(patch, ending, error)
        if error is FULL:
            assert run(jobs[1:], writes(), overwrite=True) == (0, 0, 1)
            assert "No space left" in caplog.text
        else:
            with pytest.raises(KeyboardInterrupt):
                run(jobs[1:], writes(), overwrite=True)
    assert tree(tmp_path / "out") == before
    assert run(jobs[1:], writes("new"), overwrite=True) == (1, 0, 0)


def test_what_could_not_be_put_back_is_put_back_by_the_next_command(
    tmp_path, monkeypatch
):
    jobs = [job_of(tmp_path, "a", "x/a", "y/a")]
    put(tmp_path / "out/x/a")
    put(tmp_path / "out/y/a")
    before = tree(tmp_path / "out")
    with monkeypatch.context() as patch:
        fail_at(patch, "y/a", FULL, times=2)
        assert run(jobs, writes(), overwrite=True) == (0, 0, 1)
    assert tree(tmp_path / "out") != before
    with pytest.raises(UserError, match=r"x/a: is there, without"):
        run(jobs, writes())
    assert tree(tmp_path / "out") == before


def test_a_full_disk_stops_one_result_and_not_the_rest(tmp_path, caplog):
    jobs = [job_of(tmp_path, name) for name in "abc"]
    run(jobs, writes())

    def full(job, work):
        if job.name == "b":
            writes("half")(job, work)
            raise FULL
        return writes("new")(job, work)

    assert run(jobs, full, overwrite=True) == (2, 0, 1)
    assert f"{tmp_path / 'in/b'}: No space left" in caplog.text
    assert results(tmp_path) == {"a.out": "new", "b.out": "made", "c.out": "new"}


@pytest.mark.parametrize("ending", ["x/a", "y/a", "a.json"])
def test_after_a_kill_the_next_command_puts_back_what_was_there(
    tmp_path, monkeypatch, ending
):
    jobs = [job_of(tmp_path, "a", "x/a", "y/a")]
    put(tmp_path / "out/y/a")
    before = tree(tmp_path / "out")
    with monkeypatch.context() as patch:
        # What a killed process does not come to.
        patch.setattr(staging, "_undo", lambda output, entry: None)
        patch.setattr(staging.shutil, "rmtree", lambda path, ignore_errors: None)
        fail_at(patch, ending, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(jobs, writes(), overwrite=True)
    assert list((tmp_path / "out/.making").iterdir())
    with pytest.raises(UserError, match=r"y/a: is there, without"):
        run(jobs, writes())
    assert tree(tmp_path / "out") == before
    assert not (tmp_path / "out/.making").exists()


def test_two_commands_at_once_are_one_too_many(tmp_path):
    job = job_of(tmp_path, "a")
    with hold_folder(tmp_path / "out", "--workdir"):
        with pytest.raises(
            UserError, match=r"config\.x\.output: another command .*out"
        ):
            run([job], writes())
        assert results(tmp_path).keys() == {".lock"}
    assert run([job], writes()).done


def test_an_output_that_cannot_be_written_to_is_named(tmp_path):
    put(tmp_path / "out")
    with pytest.raises(UserError, match=r"config\.x\.output: \S+out cannot be written"):
        run([job_of(tmp_path, "a")], writes())
    assert (tmp_path / "out").read_text() == "mine"


def test_what_comes_in_the_way_meanwhile_stays(tmp_path, caplog):
    def make(job, work):
        put(tmp_path / "out/a.out")
        return writes()(job, work)

    assert run([job_of(tmp_path, "a")], make) == (0, 0, 1)
    assert "a.out: is in the way" in caplog.text
    assert tree(tmp_path / "out") == {"a.out": "mine"}


def test_the_longest_names_have_a_record(tmp_path):
    long = "ü" * 120 + "x" * 15  # 255 bytes
    names = {fitting_name(name, ".json") for name in (long, long[:-1], long[:-1] + "y")}
    assert len(names) == 3
    assert all(len(os.fsencode(name)) <= 255 for name in names)
    assert fitting_name("a.nii.gz", ".json") == "a.nii.gz.json"
    job = Job(
        name="a",
        sources=(tmp_path / "in",),
        targets=(Target(path=tmp_path / "out" / long, series=False),),
        record=tmp_path / "out" / fitting_name(long, ".json"),
        slices=1,
    )
    assert run([job], writes()) == (1, 0, 0)
    assert run([job], writes()) == (0, 1, 0)


def test_inputs_that_were_left_out_are_listed_at_the_end(tmp_path, caplog):
    def make(job, work):
        work.leave_out([Skipped(path=Path("IM7"), reason="an empty file")])
        return writes()(job, work)

    jobs = [job_of(tmp_path, "a")]
    to = Destination(folder=tmp_path / "out", section="config", overwrite=False)
    tally = run_jobs(
        *("copy", jobs, make, lambda job: Terms({}, {}), to),
        skipped=[Skipped(path=Path("b"), reason="no partner")],
        unused=[Skipped(path=Path("x.txt"), reason="no image")],
    )
    assert tally == (1, 0, 1)
    assert "1 skipped:\n  b: no partner" in caplog.text
    assert "2 files not used:\n  x.txt: no image\n  IM7: an empty file" in caplog.text


@pytest.mark.parametrize(
    ("tally", "strict", "error"),
    [
        (Tally(1, 0, 0), True, None),
        (Tally(1, 0, 1), False, None),
        (Tally(0, 1, 1), False, None),
        (Tally(0, 1, 1), True, Incomplete),
        (Tally(0, 0, 1), True, UserError),
        (Tally(0, 0, 1), False, UserError),
    ],
)
def test_a_command_ends_as_its_results_are(tally, strict, error):
    if error is None:
        conclude(tally, "nothing", strict=strict)
    else:
        with pytest.raises(error):
            conclude(tally, "nothing", strict=strict)
