"""`make demo` around its deployments: logs that arrive late and out of order, runs that fail, what is printed."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows import demo, run_log
from tasks.benchmark.arms import Arm, ablation_of
from tasks.benchmark.outcomes import ArmScore

RUN = uuid4()


def line(message: str, late_s: float = 0.0, task: bool = False):
    """A log record; `late_s` is how long before now it was written."""
    when = datetime.now(UTC) - timedelta(seconds=late_s)
    return SimpleNamespace(id=uuid4(), timestamp=when, message=message, task_run_id=uuid4() if task else None)


class Server:
    """What is asked of Prefect: a run's logs, a page at a time, and its states, the last of them for ever."""

    def __init__(self, logs, states=()):
        self.logs, self.states = list(logs), list(states)

    def read_logs(self, log_filter, limit, offset, sort):
        assert log_filter.flow_run_id.any_ == [RUN]
        since = log_filter.timestamp.after_
        fits = sorted((log for log in self.logs if log.timestamp >= since), key=lambda log: log.timestamp)
        return fits[offset : offset + limit]

    def read_deployment_by_name(self, name):
        return SimpleNamespace(parameter_openapi_schema={"properties": {"dataset": {}, "seed": {}}})

    def read_flow_run(self, run_id):
        return SimpleNamespace(state=self.states.pop(0) if len(self.states) > 1 else self.states[0])


def state(name: str, final: bool = True):
    return SimpleNamespace(
        name=name, message="why", is_final=lambda: final, is_completed=lambda: final and name == "Completed"
    )


def messages(lines) -> list[str]:
    return [text.split("  ", 1)[1] for text in lines]


def test_lines_are_shown_once_and_late_ones_too():
    server = Server([line("second", 2)])
    log = run_log.FlowRunLog(server, RUN)
    assert messages(log.new_lines()) == ["second"]
    server.logs += [line("first, from another process", 4), line("third", 1)]
    assert messages(log.new_lines()) == ["first, from another process", "third"]
    assert messages(log.new_lines()) == []


def test_a_log_of_several_pages_is_shown_whole(monkeypatch):
    monkeypatch.setattr(run_log, "PAGE_SIZE", 3)
    server = Server([line(f"line {number}", 9 - number) for number in range(7)])
    assert messages(run_log.FlowRunLog(server, RUN).new_lines()) == [f"line {number}" for number in range(7)]


def test_a_tasks_last_line_is_not_the_flows():
    server = Server([line("Finished in state Completed()", task=True)])
    log = run_log.FlowRunLog(server, RUN)
    list(log.new_lines())
    assert not log.ended
    server.logs.append(line("Finished in state Completed()"))
    list(log.new_lines())
    assert log.ended


@pytest.fixture
def started(monkeypatch):
    """Return a function that puts a made server behind `demo.run_and_watch`."""

    def put(server: Server) -> None:
        monkeypatch.setattr(run_log, "POLL_S", 0.0)
        monkeypatch.setattr(run_log, "run_deployment", lambda name, parameters, timeout: SimpleNamespace(id=RUN))
        monkeypatch.setattr(run_log, "get_client", lambda sync_client: contextlib.nullcontext(server))

    return put


def test_a_traceback_is_left_to_prefects_page():
    server = Server([line('it failed: "why"\nTraceback (most recent call last):\n  File "x.py", line 1')])
    assert messages(run_log.FlowRunLog(server, RUN).new_lines()) == ['it failed: "why"']


def test_a_parameter_that_is_not_there_starts_nothing(started, monkeypatch):
    started(Server([]))
    monkeypatch.setattr(run_log, "run_deployment", lambda *given, **named: pytest.fail("it was started"))
    with pytest.raises(run_log.RunFailed, match=r"train/local has no parameter 'sead': it takes dataset, seed\."):
        run_log.start_run("train/local", {"sead": 1})


def answered(status: int, body: str) -> PrefectHTTPStatusError:
    response = httpx.Response(status, text=body, request=httpx.Request("POST", "http://127.0.0.1/api"))
    return PrefectHTTPStatusError("refused", request=response.request, response=response)


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (answered(409, '{"detail": "0 is less than 1"}'), "train/local: Prefect refuses: 0 is less than 1"),
        (answered(502, "bad gateway"), "train/local: Prefect refuses: bad gateway"),
        (ObjectNotFound(None), "train/local is not deployed: "),
        (httpx.ConnectError("refused"), r"train/local: Prefect does not answer \(refused\)\."),
    ],
)
def test_what_prefect_refuses_is_one_sentence(started, monkeypatch, raised, sentence):
    def refused(*given, **named):
        raise raised

    started(Server([]))
    monkeypatch.setattr(run_log, "run_deployment", refused)
    with pytest.raises(run_log.RunFailed, match=sentence):
        run_log.start_run("train/local", {"seed": 1})


def test_a_run_is_followed_to_its_end(started, capsys):
    last = line("Finished in state Completed()")
    started(Server([line("at work"), last], [state("Running", final=False), state("Completed")]))
    demo.run_and_watch("collect-dataset/local")
    shown = capsys.readouterr().out
    assert "collect-dataset/local" in shown
    assert shown.count("at work") == 1


def test_a_failed_run_ends_the_demo_in_one_sentence(started, capsys, monkeypatch):
    started(Server([line("Finished in state Failed('why')")], [state("Failed")]))
    assert demo.main() == 1
    assert capsys.readouterr().err == "collect-dataset/local ended as Failed: why\n"


def test_a_killed_flow_without_a_last_line_is_not_waited_for_for_ever(started, monkeypatch):
    monkeypatch.setattr(run_log, "LAST_LINES_TIMEOUT_S", 0.0)
    started(Server([line("at work")], [state("Crashed")]))
    with pytest.raises(run_log.RunFailed, match=r"ended as Crashed"):
        demo.run_and_watch("train-shareverse/local")


def test_a_report_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    (tmp_path / "runs" / "abc" / "evaluation").mkdir(parents=True)
    with pytest.raises(run_log.RunFailed, match=r"last cannot be read .*: run make demo again"):
        demo.outcome_lines()
    (tmp_path / "runs" / "last").write_text("abc")
    (tmp_path / "runs" / "abc" / "evaluation" / "report.json").write_text("{")
    with pytest.raises(run_log.RunFailed, match=r"report.json holds no readable JSON .*: run make demo again"):
        demo.outcome_lines()


def test_the_outcome_is_the_last_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    folder = tmp_path / "runs" / "abc" / "evaluation"
    folder.mkdir(parents=True)
    (tmp_path / "runs" / "last").write_text("abc\n")
    report = {
        "metrics": {"eval/psnr": 20.5, "eval/copy_first_frame/psnr": 18.6, "eval/copy_first_frame/seam": 0.9},
        "missing": {"lpips": "it needs a file", "codec/lpips": "the same"},
        "verdict": ["It learned."],
        "mlflow_url": "http://127.0.0.1:5000/#/experiments/1",
    }
    (folder / "report.json").write_text(json.dumps(report))
    printed = demo.outcome_lines()
    assert f"run abc, {folder.parent}" in printed
    assert [text.split() for text in printed if "eval/" in text] == [
        ["eval/psnr", "20.500"],
        ["eval/copy_first_frame/psnr", "18.600"],
    ]
    assert [text.split(maxsplit=1) for text in printed if "lpips" in text] == [["lpips", "it needs a file"]]
    assert "It learned." in printed
    assert printed[-1].endswith(report["mlflow_url"])


def test_the_second_act_shows_both_arms_and_where_to_look(tmp_path, monkeypatch):
    ablation = ablation_of("demo")
    standing = [
        (
            SimpleNamespace(folder=tmp_path / name),
            ArmScore(Arm(ablation.settings[0], name, 0), {"accuracy": value, "chance": 0.25}, {}),
        )
        for name, value in (("cross", 0.9), ("within", 0.2))
    ]
    monkeypatch.setattr(demo, "standing_of", lambda asked: standing if asked == ablation else [])
    printed = "\n".join(demo.hidden_fact_lines())
    assert "| cross | 0 | 0.25 | 0.900 |" in printed
    assert "| within | 0 | 0.25 | 0.200 |" in printed
    assert str(tmp_path / "cross" / "demo-report" / "hidden_fact.png") in printed
