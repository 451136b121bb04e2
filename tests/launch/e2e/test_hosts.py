"""Several hosts: ranks on two hosts train what as many ranks on one host train, to the bit in reproducible mode."""

import pathlib
import subprocess
import unittest

from common import ENVIRONMENT, Outcome, command_line, launch, needs_program, train_arguments
from test_reproducible import JOINT, REPRODUCIBLE, ReproducibleTest

TWO_HOSTS = pathlib.Path(__file__).with_name("two_hosts.sh")
CANNOT = 77  # two_hosts.sh: no hosts can be made on this machine


def setUpModule():
    needs_program()
    check = subprocess.run([TWO_HOSTS, "--only-check"], capture_output=True, text=True)
    if check.returncode == CANNOT:
        raise unittest.SkipTest(check.stderr.strip().removeprefix("two_hosts: skipped: "))


def launch_on_two_hosts(ranks, *arguments, code=0, timeout=240):
    """As common.launch, with half of the ranks on each of two hosts."""
    command = [TWO_HOSTS, "--slots", str(ranks // 2), *command_line(ranks, arguments)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # unlike SIGKILL this lets the pipes' other ends go first
        out, err = process.communicate()
    outcome = Outcome(command, process.returncode, out, err)
    if outcome.code != code:
        raise AssertionError(f"exit code {code} expected\n{outcome}")
    return outcome


class HostsTest(ReproducibleTest):
    """Borrows how ReproducibleTest trains and compares, none of its cases (load_tests)."""

    def train_on_two_hosts(self, name, *overrides):
        run = self.folder / name
        launch_on_two_hosts(4, *train_arguments("joint", run, *REPRODUCIBLE, *JOINT, "training.train_steps=4", *overrides))
        return run

    def test_ranks_are_on_both_hosts(self):
        done = subprocess.run([TWO_HOSTS, "mpirun", "-n", "4", "hostname"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        self.assertEqual(sorted(done.stdout.split()), ["alpha", "alpha", "beta", "beta"], done.stderr)

    def test_four_ranks_on_two_hosts_have_the_bits_of_one_host(self):
        one_host = self.train(4)
        self.assert_same_bits(self.train_on_two_hosts("two-hosts"), one_host, "two hosts")
        self.assert_same_bits(self.train_on_two_hosts("two-hosts-zero", "dist.zero=1"), one_host, "two hosts, ZeRO-1")

    def test_a_run_goes_on_with_the_same_bits_on_the_other_number_of_hosts(self):
        whole = self.train(4, steps=8)
        run = self.train_on_two_hosts("begun-on-two")
        self.train(4, steps=8, run=run)
        self.assert_same_bits(run, whole, "two hosts, then one")

    def test_an_error_of_all_ranks_ends_the_job_with_at_most_one_message_a_host(self):
        refused = launch_on_two_hosts(4, *train_arguments("joint", self.folder / "refused", *REPRODUCIBLE, "dist.virtual_shards=2"), code=2)
        hosts = [line.split(" on ")[1].split(":")[0] for line in refused.errors]
        self.assertEqual(len(set(hosts)), len(hosts), refused)
        self.assertIn("dist.virtual_shards = 2 on 4 ranks", refused.errors[0])


def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(HostsTest(name) for name in loader.getTestCaseNames(HostsTest) if name in vars(HostsTest))
