# SPDX-License-Identifier: Apache-2.0
"""Help, version, plugins, and what happens to a wrong command line."""
import unittest

from program import Case


class Usage(Case):
    def test_help_of_every_command_has_examples(self):
        overview = self.run_chorus("--help").stdout
        self.assertIn("Exit codes: 0 done; 1 could not be done; 2 wrong usage; 3 a file or argument is wrong; 130", overview)
        for command in ("plugins", "inspect", "combine", "route"):
            self.assertIn(f"chorus {command}", overview)
            text = self.run_chorus(command, "--help").stdout
            self.assertIn("Examples:", text)
            self.assertIn("--json", text)

    def test_wrong_usage_is_2(self):
        for arguments in ([], ["no-such-command"], ["combine"], ["route", "x.safetensors"], ["inspect"],
                          ["plugins", "--no-such-option"], ["route", "x.safetensors", "-k", "two"]):
            done = self.run_chorus(*arguments, code=2)
            self.assertNotEqual(done.stderr + done.stdout, "")

    def test_unknown_words_are_named_with_what_is_allowed(self):
        self.refused("route", "x", "-k", "2", "--score", "softmaks", code=2, says=["--score softmaks", "softmax", "sigmoid"])
        self.refused("combine", "--model", "x", "--targets", "t", "--rule", "max\x1b[2J", code=2,
                     says=["linear", "\\x1b[2J"])

    def test_version(self):
        short = self.run_chorus("version", "--short").stdout.strip()
        self.assertRegex(short, r"^\d+\.\d+\.\d+$")
        self.assertEqual(self.json_of("version")["version"], short)
        self.assertIn(short, self.run_chorus("version").stdout)

    def test_plugins(self):
        found = self.json_of("plugins")
        self.assertEqual(found["plugins"][0]["name"], "reference")
        self.assertIn("reference", [device["name"] for device in found["devices"]])
        self.assertIn("reference", self.run_chorus("plugins").stdout)

    def test_option_table(self):
        options = {option["name"]: option for option in self.json_of("plugins", "--options")}
        for option in options.values():
            self.assertTrue(option["type"] and option["doc"], option)
        self.assertIn("threads", options)
        set_to = self.json_of("plugins", "--options", "--option", "threads=3")
        self.assertEqual([option["value"] for option in set_to if option["name"] == "threads"], ["3"])

    def test_bad_options(self):
        self.refused("plugins", "--option", "thread=3", says=["thread", "threads"])
        self.refused("plugins", "--option", "threads=many", says=["threads", "many"])
        self.refused("plugins", "--option", "threads", code=2, says=["name=value"])

    def test_plugin_that_is_none(self):
        path = self.write("chorus-text.so", b"no shared library")
        self.refused("plugins", "--plugin", path, code=1, says=[path])
        self.refused("plugins", "--plugin", self.path("absent.so"), code=1, says=["absent.so"])


if __name__ == "__main__":
    unittest.main()
