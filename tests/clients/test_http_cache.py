"""RFC 9111 as its editor tests it: every test has the outcome that is written down for it.

`fixtures/http-cache-tests/expected.json` has the outcomes; `docs/protocols/generic.md` says why those that
fail do. To write the file anew: `UPDATE_EXPECTED=1`, and look at the difference.
"""

import json
import os
import shutil
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from rig.cache_suite import CacheSuite
from rig.case import scratch_root
from rig.files import Files
from rig.repoxy import REPOSITORY

EXPECTED = REPOSITORY / "fixtures/http-cache-tests/expected.json"
# The tests wait for seconds to pass and count them, a hundred at a time: on a busy machine some come too late
# for what they test. What differs from what is expected is therefore looked at again, and counts if it
# differs in every run.
RUNS = 4
# Everything that goes beyond HTTP's own rules is off, and what stands between a client and the origin's own
# answers: retries, redirects followed, and a breaker that these tests would open.
SWITCHES = """
follow_redirects = false
forward_authorization = true
forward_unsafe = true
retries = 0
breaker_after = 1000000
max_connections = 1000
"""


class HttpCacheTest(unittest.TestCase):
    """Runs the whole suite through a proxy for plain files."""

    maxDiff = None

    def setUp(self) -> None:
        """Starts the suite's origin, and repoxy in front of it."""
        scratch = Path(tempfile.mkdtemp(dir=scratch_root()))
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        self.suite = CacheSuite(scratch)
        self.addCleanup(self.suite.stop)
        self.repoxy = Files(scratch, self.suite.url, SWITCHES)
        self.addCleanup(self.repoxy.stop)
        self.repoxy.start()

    def test_every_test_has_the_outcome_that_is_written_down(self):
        """And enough of them are passes."""
        kinds = self.suite.kinds()
        expected = {} if "UPDATE_EXPECTED" in os.environ else json.loads(EXPECTED.read_text())
        differing: dict[str, list[str]] = {}
        for run in range(RUNS):
            outcomes = self.suite.run(self.repoxy.base)
            self.assertEqual(set(outcomes), set(kinds), "a test was not run")
            if not expected:
                EXPECTED.write_text(json.dumps(outcomes, indent=2, sort_keys=True) + "\n")
                return
            now = {test: outcome for test, outcome in outcomes.items() if outcome != expected[test]}
            before = differing if run else now
            differing = {test: [*differing.get(test, []), now[test]] for test in before if test in now}
            if not differing:
                break
        self.assertEqual(differing, {}, "outcomes that differ from what is expected, in every run")

        counts = Counter((kinds[test], outcome) for test, outcome in expected.items())
        self.assertGreaterEqual(counts["required", "pass"], 145)
        self.assertGreaterEqual(counts["optimal", "pass"], 60)
        self.repoxy.fsck()


if __name__ == "__main__":
    unittest.main()
