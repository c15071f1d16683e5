"""How far a long command is."""

from jaxmg import progress


def test_progress_needs_no_stderr(monkeypatch):
  monkeypatch.setattr(progress.sys, "stderr", None)
  progress.say("nobody hears it")
  assert list(progress.track("ab", "work", total=2, unit="things")) == ["a", "b"]


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
  clock = iter(range(0, 100, 10))
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
  assert list(progress.track("abcdefgh", "work", total=10, unit="things", done=2)) == [*"abcdefgh"]
  assert capsys.readouterr().err.splitlines() == [
    "work: 4 of 10 things, 1 min 30 s left",
    "work: 7 of 10 things, 0 min 36 s left",
  ]
