"""The checks of manifests/: `tests/run manifests` runs them, with the tools of tests/real in the environment.

Each test is one line that tests/run counts. `used` is one of `tests/run nodes`: what its scenarios asked.
"""

import sys
import unittest

MODULES = ["builds", "chart", "rights", "admission", "older"]


class Lines(unittest.TextTestResult):
    """`check NAME ... ok`, and so on."""

    def line(self, test, outcome):
        name = test.id().rsplit(".", 1)[-1].removeprefix("test_").replace("_", " ")
        print(f"check {name} ... {outcome}", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.line(test, "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.line(test, "FAILED")

    def addError(self, test, err):
        super().addError(test, err)
        self.line(test, "FAILED")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.line(test, "FAILED")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line(test, f"skipped: {reason}")


names = sys.argv[1:] or MODULES
suite = unittest.defaultTestLoader.loadTestsFromNames(names)
done = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=Lines).run(suite)
sys.exit(not done.wasSuccessful())
