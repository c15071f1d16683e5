import numpy as np

from jaxmg.data import batch


def test_fake_has_the_shapes_and_types_of_the_literal():
  fake = batch.fake(batch_size=3, num_frames=5, num_persons=2, num_joints=17, num_classes=4)
  fake |= fake.pop("pose")
  assert {name: (array.shape, array.dtype) for name, array in fake.items()} == {
    "keypoints": ((3, 5, 2, 17, 3), np.float32),
    "frame_size": ((3, 2), np.int32),
    "label": ((3,), np.int32),
    "clip": ((3,), np.int32),
    "mask": ((3,), np.bool_),
  }
  assert batch.fake(num_views=10)["pose"]["keypoints"].shape == (2, 10, 4, 1, 17, 3)


def test_fake_is_the_same_for_the_same_seed():
  np.testing.assert_equal(batch.fake(7), batch.fake(7))
  assert not np.array_equal(batch.fake(7)["pose"]["keypoints"], batch.fake(8)["pose"]["keypoints"])


def test_fake_lies_in_the_frame_and_has_absent_joints():
  fake = batch.fake(batch_size=8, frame_size=(72, 128))["pose"]
  x, y, score = np.moveaxis(fake["keypoints"], -1, 0)
  assert 64 < x.max() < 128
  assert 36 < y.max() < 72
  absent = score == 0
  assert 0.02 < absent.mean() < 0.3
  assert (fake["keypoints"][absent] == 0).all()
