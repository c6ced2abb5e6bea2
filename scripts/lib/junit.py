#!/usr/bin/python3
"""Counts the results in a JUnit file: prints failures and skips with their reasons, then PASSED FAILED SKIPPED.

    junit.py FILE    (as ctest --output-junit and pytest --junitxml write it)
"""
import sys
import xml.etree.ElementTree as xml


def reason_of(case, kind):
    node = case.find(kind)
    text = (node.get("message") or node.text or "").strip() if node is not None else ""
    if kind == "skipped" and text in ("", "SKIP_REGULAR_EXPRESSION_MATCHED", "Disabled"):
        # ctest keeps what a gtest program said about its skip in the output only.
        output = (case.findtext("system-out") or "").splitlines()
        said = [line for line in output if line and not line.startswith(("[", "Running", "Note:"))]
        text = " ".join(said[-3:]) or text
    return " ".join(text.split())[:300]


def main():
    passed = failed = skipped = 0
    for case in xml.parse(sys.argv[1]).iter("testcase"):
        name = case.get("name", "?")
        status = case.get("status", "")
        if case.find("failure") is not None or case.find("error") is not None or status == "fail":
            failed += 1
            kind = "failure" if case.find("failure") is not None else "error"
            print(f"FAILED   {name}: {reason_of(case, kind)}", file=sys.stderr)
            for line in (case.findtext("system-out") or "").splitlines()[-40:]:
                print(f"    {line}", file=sys.stderr)
        elif case.find("skipped") is not None or status in ("notrun", "disabled"):
            skipped += 1
            print(f"skipped  {name}: {reason_of(case, 'skipped')}", file=sys.stderr)
        else:
            passed += 1
    print(passed, failed, skipped)


main()
