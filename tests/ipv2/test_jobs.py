"""Jobs: what is done, what a crash leaves, what is never touched."""

import json
import signal

import pytest

from common.errors import UserError
from ipv2.jobs import run_jobs
from ipv2.scans import Job

TERMS = {"task": "copy 1", "strength": (1, 2)}


def jobs_in(folder, *names):
    return [
        Job(name=n, source=folder / n, target=folder / f"{n}.out", slices=1)
        for n in names
    ]


def run(jobs, make, *, overwrite=False, **terms):
    asked = TERMS | terms
    return run_jobs(
        "copy", jobs, make, lambda job: asked, section="config.x", overwrite=overwrite
    )


def writes(text="made"):
    def make(job, replace, count):
        assert replace == job.target.exists()
        job.target.unlink(missing_ok=True)
        job.target.write_text(text)
        count(1)
        return {"by": text}

    return make


def test_what_is_there_is_left_alone_and_what_is_bad_is_told(tmp_path, caplog):
    jobs = jobs_in(tmp_path, "a", "b", "c")

    def make(job, replace, count):
        if job.name == "b":
            raise UserError("b is broken")
        return writes()(job, replace, count)

    assert run(jobs, make) == (2, 0, 1)
    assert "b is broken" in caplog.text
    assert run(jobs, writes("again")) == (1, 2, 0)
    assert [job.target.read_text() for job in jobs] == ["made", "again", "made"]
    record = json.loads(jobs[0].record.read_text())
    assert record == {"task": "copy 1", "strength": [1, 2], "by": "made"}
    assert not list(tmp_path.glob(".*"))


def test_a_crash_before_the_record_is_gone_over_again(tmp_path):
    jobs = jobs_in(tmp_path, "a")

    def crash(job, replace, count):
        job.target.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(jobs, crash)
    assert jobs[0].target.exists() and not jobs[0].record.exists()
    assert run(jobs, writes()) == (1, 0, 0)
    assert jobs[0].target.read_text() == "made"
    assert not list(tmp_path.glob(".*"))


def test_an_interruption_before_anything_is_written_leaves_nothing(tmp_path):
    def stop(job, replace, count):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(jobs_in(tmp_path, "a"), stop)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_another_made_is_never_replaced_unasked(tmp_path):
    jobs = jobs_in(tmp_path, "a")
    jobs[0].target.write_text("mine")
    with pytest.raises(UserError, match=r"without a a\.out\.json .*config\.x\.overwr"):
        run(jobs, writes())
    jobs[0].record.write_text("my own notes")
    with pytest.raises(UserError, match="not a record of a task"):
        run(jobs, writes())
    assert jobs[0].target.read_text() == "mine"
    assert run(jobs, writes(), overwrite=True) == (1, 0, 0)
    with pytest.raises(UserError, match=r"task: 'copy 1' there, 'copy 2' asked"):
        run(jobs, writes(), task="copy 2")
