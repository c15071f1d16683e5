"""How far a long command is."""

import io

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
    "work: 5 of 10 things, 0 min 50 s left",
    "work: 8 of 10 things, 0 min 20 s left",
  ]


def test_a_bar_says_more_where_it_is_asked_and_leaves_out_a_pause(capsys, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  bar = progress.Bar("training", total=10, unit="steps")
  for now[0] in (10, 20):
    bar.update(lambda: 1 / 0)  # not asked before it is shown
  now[0] = 100
  bar.resume()
  now[0] = 110
  bar.update(lambda: "loss 1.5")
  bar.write("epoch 1")
  bar.close()
  out, err = capsys.readouterr()
  assert err == "training: 3 of 10 steps, loss 1.5, 1 min 10 s left\n"
  assert out == "epoch 1\n"


def test_on_a_terminal_there_is_a_bar_with_what_more_is_said(capsys, monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  terminal = Terminal()
  monkeypatch.setattr(progress.sys, "stderr", terminal)
  monkeypatch.setattr(progress, "_REFRESH", 0.0)
  bar = progress.Bar("training", total=3, unit="steps", done=1)
  bar.update(lambda: "loss 1.5")
  bar.resume()
  bar.write("epoch 1")
  bar.update(lambda: "")
  bar.close()
  shown = terminal.getvalue()
  assert "training: " in shown
  assert "2/3" in shown
  assert "loss 1.5" in shown
  assert capsys.readouterr().out == "epoch 1\n"
