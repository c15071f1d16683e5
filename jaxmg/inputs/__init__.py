"""From a record to the model's input: what is read on the host, augmented and drawn on the device.

An input is a frozen dataclass; its fields are its part of a run's recipe. It is all that is known
about one kind of model input, and training, evaluation and prediction have it from here:

  track               the track of a prepared set that it reads; of tokens, a field
  told                what a raw file is taken to hold where it leaves that open (`readers.Told`)
  check(about)        ValueError: what the records of a track lack
  check_shown(record) ValueError: why nothing is to be said of a record that is to be predicted
  shows(record)       whether it shows anybody: a window of it of which this is false has no classes
  read(record, rng)   host, numpy: the only change of shapes; read_test has an axis of test clips
  kept(record)        perhaps: a small record for the memory, of which `read` reads the same bits
  example(num_clips)  the shapes of a batch of one
  train(keys, part, mirror)    device: augment, then render or derive; heatmaps may be left
                      to the model to draw (`jaxmg.gaussians`)
  views(part, mirror)  device: what all test views share, leading axis R
  view(view, mask)     one of them; what is shown is multiplied by the mask, if there is one:
  ones(view)           such a mask, of which nothing is hidden: a number for each pixel or joint
  sampled(record, num_clips)   numbers of the frames that read_test takes, [N, T]
  whole(num_frames, num_clips, ...)   what a program takes of whole recordings, and how it reads
                      them on the device as read_test does on the host (`whole.Whole`)
  whole_options       what it has to be told of them beside: "frame_size", "fps"
  num_frames          how many frames of a clip are drawn
  draw, picture       what a person should see of a clip, and of what the model is given
  SEEN                the fields that must not change where a trained network is taken over

A new kind is a file here and a line in `INPUTS`. The functions below them are the same for one's
own steps: pure, on the device, inside jit, so that a heatmap volume (10 MB a clip) never exists on
the host.
"""

from jaxmg.inputs import published as published
from jaxmg.inputs.faces import Faces as Faces
from jaxmg.inputs.graph import PREPARATIONS as PREPARATIONS
from jaxmg.inputs.graph import STREAMS as STREAMS
from jaxmg.inputs.graph import Graph as Graph
from jaxmg.inputs.graph import graph_inputs as graph_inputs
from jaxmg.inputs.graph import graph_view as graph_view
from jaxmg.inputs.graph import graph_views as graph_views
from jaxmg.inputs.heatmaps import Heatmaps as Heatmaps
from jaxmg.inputs.heatmaps import heatmap_inputs as heatmap_inputs
from jaxmg.inputs.heatmaps import heatmap_view as heatmap_view
from jaxmg.inputs.heatmaps import heatmap_views as heatmap_views
from jaxmg.inputs.tokens import Tokens as Tokens
from jaxmg.inputs.video import Video as Video
from jaxmg.names import ByName

INPUTS = ByName(
  "input",
  {"faces": Faces, "graph": Graph, "heatmaps": Heatmaps, "tokens": Tokens, "video": Video},
)
