import re

from pipeline_cli.pipeline import packaging
from pipeline_cli.pipeline.deploying import deploy as deploying
from terraform_tables import PAGE, with_tables


def test_the_tables_are_those_of_the_module() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run: python tests/terraform_tables.py"


def test_every_variable_in_an_example_exists() -> None:
    for pair in re.findall(r"--var '?(\w+=[^'\s]+)", PAGE.read_text()):
        name, _, value = pair.partition("=")
        assert name in deploying.module_variables()
        if value != "...":
            deploying.parse_variables([pair])


def test_the_runtime_is_the_one_that_zips_are_built_for() -> None:
    functions = (packaging.source_folder("terraform") / "functions.tf").read_text()
    assert f'runtime = "python{packaging.RUNTIME}"' in functions
