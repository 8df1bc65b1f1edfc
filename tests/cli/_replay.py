"""Logs and the command that the tests of readers and replay share."""

import csv

NORMS = [3.0, 5.0, 1.0, 1.0]  # with a window of 2: means 4, 3, 1, zenith 4


def write_csv(path, header, *lines):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def lines(axes):
    return {line.get_label(): [float(y) for y in line.get_ydata()] for line in axes.lines}
