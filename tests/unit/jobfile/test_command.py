from hypothesis import given
from hypothesis import strategies as st

from scheduler.jobfile import command
from scheduler.jobfile.text import parse

WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(WORD, min_size=2), st.dictionaries(WORD, WORD))
def test_any_words_survive_the_file(argv, env):
    tree = parse(command(argv, env=env))
    assert tree["run"] == argv
    assert tree.get("env", {}) == env
