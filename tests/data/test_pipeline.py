import hashlib
import itertools
import json

import numpy as np
import pytest

from jaxmg import inputs
from jaxmg.data import batch, pipeline, records, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import sampling, topology


def pose(skeleton="openpose18", **options):
  options = {"num_frames": 6} | options
  return {"pose": inputs.Heatmaps(topology.get(skeleton), (72, 128), **options)}


def flat(batch):
  """The arrays of a batch by their names, the pose's beside the others."""
  batch = dict(batch)
  return batch.pop("pose") | batch


@pytest.fixture(scope="module")
def data(toy):
  return source.Source(toy)


def train(data, rows=None, num_persons=1, **options):
  options = dict(batch_size=6, seed=0, num_threads=0) | options
  rows = data.rows("train") if rows is None else rows
  batches = pipeline.train_batches(data, rows, pose(num_persons=num_persons), **options)
  return Flat(batches)


class Flat:
  """An iterator over batches whose arrays are all side by side."""

  def __init__(self, batches):
    self.get_state, self.set_state = batches.get_state, batches.set_state
    self._batches = batches

  def __iter__(self):
    return self

  def __next__(self):
    return flat(next(self._batches))


def evaluate(data, rows, num_persons=1, **options):
  options = dict(num_clips=3, batch_size=4, num_threads=0) | options
  batches = pipeline.test_batches(data, rows, pose(num_persons=num_persons), **options)
  return list(map(flat, batches))


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def clips(batches):
  return np.concatenate([batch["clip"] for batch in batches])


def spec(batch):
  return {name: (array.shape, array.dtype) for name, array in batch.items()}


def test_batches_are_those_of_the_literal(data):
  fake = batch.fake(batch_size=6, num_frames=6, num_persons=2, num_joints=18)
  assert spec(next(train(data, num_persons=2))) == spec(flat(fake))
  fake = batch.fake(batch_size=4, num_frames=6, num_joints=18, num_views=3)
  assert spec(evaluate(data, np.arange(4))[0]) == spec(flat(fake))


def test_every_clip_comes_once_per_epoch_in_a_new_order(data):
  epochs = clips(take(train(data, batch_size=5), 12)).reshape(3, 20)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(data.rows("train"), (3, 1)))
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_a_batch_straddles_two_epochs(data):
  drawn = clips(take(train(data, batch_size=6), 10))
  np.testing.assert_array_equal(np.bincount(drawn), np.full(20, 3))


def test_order_of_three_epochs_is_pinned(data):
  order = clips(take(train(data, batch_size=20), 3))
  digest = hashlib.sha256(order.astype("<i4").tobytes()).hexdigest()[:16]
  assert digest == "de12e6b8ab7c951d", (
    "the order of training clips changed: no run can be resumed exactly"
  )


def test_balanced_batches_bring_every_class_equally_often(data):
  rows = data.rows("train")[:17]  # 6, 6 and 5 clips of three classes
  rows = rows[data.labels[rows] < 2]
  rows = np.append(rows, data.rows("train")[2])  # one clip of the third
  drawn = take(train(data, rows=rows, balanced=True, batch_size=6), 20)
  for one in drawn:
    np.testing.assert_array_equal(np.bincount(one["label"]), [2, 2, 2])
    assert set(one["clip"]) <= set(rows.tolist())
  labels = np.concatenate([one["label"] for one in drawn])
  assert len({tuple(once) for once in labels.reshape(-1, 3).tolist()}) == 6  # in any order
  counts = np.bincount(clips(drawn))[rows]
  assert counts[-1] == 40
  assert (counts[:-1] > 0).all()
  # The one clip of the third class is sampled anew each time.
  seen = [one["keypoints"][one["label"] == 2] for one in drawn]
  assert len({part.tobytes() for part in seen}) > 1


def test_balanced_batches_resume_exactly(data):
  whole = take(train(data, balanced=True), 9)
  first = train(data, balanced=True)
  take(first, 4)
  second = train(data, balanced=True)
  second.set_state(first.get_state())
  for expected, got in zip(whole[4:], take(second, 5), strict=True):
    for name in expected:
      np.testing.assert_array_equal(expected[name], got[name])


def test_seeds_order_differently(data):
  zero, one = (clips(take(train(data, batch_size=20, seed=seed), 3)) for seed in (0, 1))
  # Neither the same nor, as when seed + epoch is the seed of an epoch, the same an epoch later.
  assert (zero[:20] != one[:20]).any()
  assert (zero[20:40] != one[:20]).any()


def test_columns_follow_the_index(data):
  drawn = next(train(data))
  np.testing.assert_array_equal(drawn["label"], data.labels[drawn["clip"]])
  np.testing.assert_array_equal(drawn["frame_size"][:, 0], 72 + drawn["clip"])
  assert drawn["mask"].all()


def test_sampling_depends_on_seed_epoch_and_row_alone(data):
  drawn = {}
  for number, one in enumerate(take(train(data, batch_size=20, seed=3, num_persons=2), 2)):
    drawn |= {(number, row): one["keypoints"][i] for i, row in enumerate(one["clip"].tolist())}
  joints = topology.get("openpose18").indices_in("openpose25")
  for epoch, row in drawn:
    keypoints = data.track("pose")[row]["keypoints"][:, ::-1][
      :, :, joints
    ]  # the second person scores higher
    rng = np.random.default_rng((3, epoch, row))
    expected = sampling.sample(keypoints, kind="uniform", num_frames=6, rng=rng)
    np.testing.assert_array_equal(drawn[epoch, row], expected)


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_resumed_iterator_goes_on_exactly(data, num_threads):
  whole = take(train(data), 9)
  first = train(data, num_threads=num_threads)
  take(first, 4)
  state = first.get_state()
  second = train(data, num_threads=num_threads)
  take(second, 1)
  second.set_state(state)
  np.testing.assert_equal(take(second, 5), whole[4:])
  np.testing.assert_equal(take(first, 5), whole[4:])


def two_inputs(num_persons):
  graph = inputs.Graph("openpose18", (72, 128), num_frames=8, preparation="kinetics", num_persons=2,
                       sampling="repeat")  # fmt: skip
  return pose(num_persons=num_persons) | {"graph": graph}


def counted(monkeypatch, rows):
  """Notes the rows that are read from the disk."""
  read = records.Track.__getitem__

  def note(self, row):
    rows.append(row)
    return read(self, row)

  monkeypatch.setattr(records.Track, "__getitem__", note)


@pytest.mark.parametrize("num_threads", [0, 3])
@pytest.mark.parametrize(("room", "balanced"), [(2**31, False), (2**31, True), (9000, False)])
def test_kept_clips_are_those_that_are_read_anew(data, monkeypatch, room, balanced, num_threads):
  def batches(room, num_threads):
    monkeypatch.setattr(pipeline, "KEPT_BYTES", room)
    options = dict(batch_size=6, seed=0, balanced=balanced, num_threads=num_threads)
    return take(
      pipeline.train_batches(data, data.rows("train"), two_inputs(num_persons=2), **options), 9
    )

  np.testing.assert_equal(batches(room, num_threads), batches(0, 0))


def test_kept_clips_are_read_once_while_there_is_room(data, monkeypatch):
  read = []
  counted(monkeypatch, read)
  rows = data.rows("train")
  one = pose()["pose"]
  size = {row: one.kept(data.track("pose")[row])["keypoints"].nbytes for row in rows.tolist()}
  for room, fewest in ((2**31, 0), (sum(size.values()) // 2, 5), (0, 20)):
    monkeypatch.setattr(pipeline, "KEPT_BYTES", room)
    batches = train(data, batch_size=5)
    take(batches, 4)
    read.clear()
    take(batches, 4)
    # What is kept lies within the room: the rest is read.
    assert sum(size.values()) - sum(size[row] for row in read) <= room
    assert fewest <= len(read) <= (20 if room < 2**31 else 0)
    assert len(set(read)) == len(read)


def test_an_input_with_another_read_keeps_nothing_by_what_it_inherits(data):
  class Own(inputs.Heatmaps):
    def read(self, record, rng):
      read.append(record["layout"])
      return super().read(record, rng)

  read = []
  own = {"pose": Own("openpose18", (72, 128), num_frames=6)}
  next(pipeline.train_batches(data, data.rows("train"), own, batch_size=6, seed=0, num_threads=0))
  assert {*read} == {data.track("pose").kind.layout}  # whole, and not what is left of it


def test_state_is_one_integer_that_counts_batches(data):
  iterator = train(data, num_threads=2)
  take(iterator, 7)
  assert iterator.get_state() == {"next_index": 7}


def test_fingerprint_knows_data_rows_and_options(data, edited_toy):
  def relabel(index):
    index["clips"]["label"][4] = 0

  rows, options = data.rows("train"), {"skeleton": "openpose18", "seed": 0}
  fingerprint = pipeline.fingerprint(data, rows, ["pose"], **options)
  assert fingerprint == pipeline.fingerprint(data, rows.astype(np.int32), ["pose"], **options)
  others = [
    pipeline.fingerprint(source.Source(edited_toy(relabel)), rows, ["pose"], **options),
    pipeline.fingerprint(data, rows[::-1], ["pose"], **options),
    pipeline.fingerprint(data, rows[:-1], ["pose"], **options),
    pipeline.fingerprint(data, rows, ["pose"], **options | {"skeleton": "coco17"}),
    pipeline.fingerprint(data, rows, ["pose"], **options | {"seed": 1}),
  ]
  changed = [{name for name in other if other[name] != fingerprint[name]} for other in others]
  assert changed == [{"data"}, {"rows"}, {"rows", "number of rows"}, {"skeleton"}, {"seed"}]
  assert json.loads(json.dumps(fingerprint)) == fingerprint


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_batches_of_one(data, count):
  whole = take(train(data), 5)
  shares = [take(train(data, process_index=i, process_count=count), 5) for i in range(count)]
  for one, *parts in zip(whole, *shares, strict=True):
    joined = {key: np.concatenate([part[key] for part in parts]) for key in one}
    np.testing.assert_equal(joined, one)


def test_a_state_fits_any_number_of_processes(data):
  single = train(data)
  take(single, 3)
  halves = [train(data, process_index=i, process_count=2) for i in range(2)]
  for half in halves:
    half.set_state(single.get_state())
  joined = np.concatenate([next(half)["clip"] for half in halves])
  np.testing.assert_array_equal(joined, next(single)["clip"])


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_counts_every_clip_once(data, count, processes):
  rows = np.arange(23)[::-1][:count]
  seen = []
  for i in range(processes):
    batches = evaluate(data, rows, process_index=i, process_count=processes)
    assert len(batches) == -(-count // 4)
    assert all(len(one["mask"]) == 4 // processes for one in batches)
    seen += [row for one in batches for row in one["clip"][one["mask"]].tolist()]
  assert sorted(seen) == sorted(rows.tolist())


def test_evaluation_is_in_order_and_can_be_repeated(data):
  rows = np.arange(5, 15)
  batches = pipeline.test_batches(
    data,
    rows,
    pose("openpose25", sampling="interpolate", num_frames=4),
    num_clips=2,
    batch_size=5,
  )
  first, second = list(batches), list(batches)
  np.testing.assert_array_equal(clips(first), rows)
  np.testing.assert_equal(first, second)


def test_padding_repeats_the_last_clip(data):
  (one,) = evaluate(data, np.array([2, 7]))
  assert one["mask"].tolist() == [True, True, False, False]
  assert one["clip"].tolist() == [2, 7, 7, 7]
  np.testing.assert_array_equal(one["keypoints"][3], one["keypoints"][1])


def test_views_are_the_test_clips(data):
  (one,) = evaluate(data, np.array([12]), batch_size=1, num_persons=2)
  joints = topology.get("openpose18").indices_in("openpose25")
  expected = sampling.sample_test(
    data.track("pose")[12]["keypoints"][:, ::-1][:, :, joints],
    kind="uniform",
    num_frames=6,
    num_clips=3,
  )
  np.testing.assert_array_equal(one["keypoints"][0], expected)


def test_fault_in_a_clip_names_the_clip(data, monkeypatch):
  def refuse(keypoints, **_):
    if len(keypoints) == 4:
      raise ValueError("no luck")
    return np.zeros((6, 1, 18, 3), np.float32)

  monkeypatch.setattr(sampling, "sample", refuse)
  with pytest.raises(DataError, match=r"toy/1\.0\.0: clip 'clip 3 手': no luck"):
    take(train(data, num_threads=2), 4)


def test_damaged_shard_names_the_clip(edited_toy):
  path = edited_toy(lambda index: None)
  (shard,) = path.glob("pose/*.array_record*")
  content = bytearray(shard.read_bytes())
  content[len(content) // 3] ^= 1
  shard.write_bytes(content)
  with pytest.raises(DataError, match=r"toy/1\.0\.0: clip 'clip .*hash mismatch"):
    evaluate(source.Source(path), np.arange(23))


def test_fewer_clips_than_a_batch_takes_are_refused(data):
  with pytest.raises(DataError, match="at least one batch of 21, got 20"):
    train(data, batch_size=21)
  with pytest.raises(DataError, match="clips to evaluate: expected at least 1, got 0"):
    evaluate(data, np.array([], np.int64))


def test_batch_that_processes_cannot_share_is_refused(data):
  with pytest.raises(ConfigError, match=r"expected a multiple of 4 \(processes\), got 6"):
    train(data, process_count=4)
  with pytest.raises(ConfigError, match="got 0"):
    evaluate(data, np.arange(4), batch_size=0)


def test_skeleton_that_the_source_lacks_is_refused(data):
  with pytest.raises(ConfigError, match=r"expected imigue22.*got 'openpose25'"):
    pipeline.train_batches(data, data.rows("train"), pose("imigue22"), batch_size=2, seed=0)


def test_drawn_batches_are_views_of_the_rows_of_the_test_batches(data):
  rows = data.rows("train")[:6]
  options = dict(views=2, batch_size=4, seed=3, num_threads=0)
  found = list(map(flat, pipeline.drawn_batches(data, rows, pose(), **options)))
  tested = [x["clip"].tolist() for x in evaluate(data, rows)]
  assert [x["clip"].tolist() for x in found] == [tested[0]] * 2 + [tested[1]] * 2
  assert [x["view"].tolist() for x in found] == [[0] * 4, [1] * 4] * 2
  one = pose()["pose"]
  for x in found:
    for k, (row, view) in enumerate(zip(x["clip"], x["view"], strict=True)):
      record = data.track("pose")[int(row)]
      part = one.read(record, np.random.default_rng((3, int(view), int(row))))
      np.testing.assert_array_equal(x["keypoints"][k], part["keypoints"])
  with pytest.raises(DataError, match="clips to evaluate: expected at least 1, got 0"):
    pipeline.drawn_batches(data, rows[:0], pose(), **options)
  rest = list(map(flat, pipeline.drawn_batches(data, rows, pose(), first_batch=1, **options)))
  for a, b in zip(found[2:], rest, strict=True):
    np.testing.assert_array_equal(a["keypoints"], b["keypoints"])
