"""`zenith.logs` into TensorFlow's own event files."""

import tensorflow as tf

from zenith.logs import MetricLog, to_tensorboard
from zenith.readers import series


def test_tensorboard_of_tensorflow(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with MetricLog(to_tensorboard(writer)) as log:
        for scale in (1.0, 0.75, 0.25):
            log({"scale": tf.constant(scale), "grad_norm": 4 * scale})
    writer.close()
    assert series(tmp_path) == ("zenith/grad_norm", [1, 2, 3], [4.0, 3.0, 1.0], 0, False)
    assert series(tmp_path, "zenith/scale").values == [1.0, 0.75, 0.25]
