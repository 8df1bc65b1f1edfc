"""What every command line here promises of a mistake."""


def assert_one_line(stderr, complaint, program="zenith"):
    assert stderr.startswith(f"{program}: error: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert complaint in stderr
