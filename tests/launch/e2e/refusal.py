"""A test case for commands that must refuse."""

import h5py

import common


class RefusalTest(common.EndToEndTest):
    launch = staticmethod(common.launch)

    def refuse(self, arguments, code, *words, ranks=2):
        """The command ends with `code` and one message that has all the words in it."""
        outcome = common.launch(ranks, *arguments, code=code)
        self.assertEqual(len(outcome.errors), 1, outcome)
        message = outcome.err[outcome.err.index(outcome.errors[0]) :]
        for word in words:
            self.assertIn(word, message, outcome)
        return message

    @staticmethod
    def first_scene():
        with h5py.File(common.samples() / "scenes" / "scenes-00000.h5", "r") as file:
            return "_".join(file[f"scene/{part}"][0].decode() for part in ("object", "light"))
