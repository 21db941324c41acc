"""template.yaml as CloudFormation would deploy it: transformed by SAM, and rendered for given parameters.

Rendering knows what the template uses: references get plausible values, so that what refers to something has its form.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
import yaml

from infra.dynamodb import TEMPLATE
from infra.stack import CREDENTIALS, MINISTACK

NOTHING = object()
"""What AWS::NoValue leaves: no such property."""
ACCOUNT = "123456789012"
CHOSEN = {
    "JwtIssuer": "https://issuer.example/pool",
    "JwtAudience": "app,shop",
    "RewardsState": "ENABLED",
}
"""What a deployer has to choose."""
NAMES = {
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::Logs::LogGroup": "LogGroupName",
}
"""Of the resources that are named by the template, the property that does, and that a reference becomes."""
TRANSFORM = """
import json, sys
from samtranslator.translator.transform import transform
class NoPolicies:
    def load(self): return {}
print(json.dumps(transform(json.load(sys.stdin), {}, NoPolicies())))
"""


class _Tagged(yaml.SafeLoader):
    """Reads CloudFormation's tags in their long form, as in {"Fn::Sub": ...}."""


def _long_form(loader: _Tagged, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


yaml.add_multi_constructor("!", _long_form, Loader=_Tagged)


@cache
def source() -> Any:
    """template.yaml, with functions in their long form."""
    return yaml.load(TEMPLATE.read_text(), _Tagged)


@cache
def transformed() -> Any:
    """What SAM makes of template.yaml, by the translator that AWS runs too."""
    python = MINISTACK.with_name("python")
    if not python.exists():
        pytest.skip("NOT TESTED as SAM transforms it: `make test` sets up the translator")
    template = json.loads(json.dumps(source()))
    for resource in template["Resources"].values():
        if "CodeUri" in resource["Properties"]:
            resource["Properties"]["CodeUri"] = "s3://bucket/artifact"
    done = subprocess.run(
        [python, "-c", TRANSFORM],
        input=json.dumps(template),
        env=CREDENTIALS,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


class Rendered:
    """The template as it is deployed with some parameters; all others are CHOSEN or have their defaults."""

    def __init__(
        self,
        *,
        stack: str = "ledger-prod",
        region: str = "us-east-1",
        created: str = "",
        **parameters: str,
    ) -> None:
        unique = uuid5(NAMESPACE_DNS, f"{region} {stack} {created}")
        self._pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": NOTHING,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackId": f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{stack}/{unique}",
            "AWS::StackName": stack,
        }
        self._stack, self._region = stack, region
        self._template = transformed()
        declared = self._template["Parameters"]
        defaults = {name: str(one["Default"]) for name, one in declared.items() if "Default" in one}
        self.parameters = {**defaults, **CHOSEN, **parameters}
        assert self.parameters.keys() == declared.keys()
        resources = self._template["Resources"]
        self.resources = {
            name: one
            for name, one in resources.items()
            if "Condition" not in one or self.holds(one["Condition"])
        }
        self.properties = {
            name: self.value(one.get("Properties", {})) for name, one in self.resources.items()
        }

    def of_type(self, kind: str) -> dict[str, Any]:
        """The properties of all resources of a type."""
        return {
            name: self.properties[name]
            for name, one in self.resources.items()
            if one["Type"] == kind
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition of the template is true."""
        return bool(self.value(self._template["Conditions"][condition]))

    def broken_rules(self) -> list[str]:
        """What the template's rules say against the parameters."""
        return [
            assertion["AssertDescription"]
            for rule in self._template["Rules"].values()
            if self.value(rule.get("RuleCondition", True))
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]

    def outputs(self) -> dict[str, Any]:
        """What the stack puts out."""
        declared = self._template["Outputs"]
        return {
            name: self.value(one["Value"])
            for name, one in declared.items()
            if "Condition" not in one or self.holds(one["Condition"])
        }

    def document(self) -> dict[str, Any]:
        """A template of the same stack in which nothing is left to put in."""
        kept = ("Type", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy")
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Resources": {
                name: {
                    **{key: one[key] for key in kept if key in one},
                    "Properties": self.properties[name],
                }
                for name, one in self.resources.items()
            },
        }

    def in_order(self) -> list[str]:
        """The resources, each after those that it refers to or depends on."""
        order: list[str] = []
        for name in self.resources:
            self._put_in_order(name, order, ())
        return order

    def _put_in_order(self, name: str, order: list[str], path: tuple[str, ...]) -> None:
        assert name not in path, f"{' -> '.join(path)} -> {name}: CloudFormation refuses a circle"
        if name not in order:
            for other in sorted(_references(self.resources[name]) & self.resources.keys()):
                self._put_in_order(other, order, (*path, name))
            order.append(name)

    def value(self, given: Any) -> Any:
        """What becomes of a value when CloudFormation puts in what it refers to."""
        if isinstance(given, list):
            return [one for one in map(self.value, given) if one is not NOTHING]
        if not isinstance(given, dict):
            return given
        if len(given) == 1:
            ((name, argument),) = given.items()
            if name in {"Ref", "Condition"} or name.startswith("Fn::"):
                return getattr(self, f"_{name.removeprefix('Fn::').lower()}")(argument)
        values = {name: self.value(one) for name, one in given.items()}
        return {name: one for name, one in values.items() if one is not NOTHING}

    def _ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            kind, text = self._template["Parameters"][name]["Type"], self.parameters[name]
            if kind == "Number":
                return int(text)
            return text.split(",") if kind == "CommaDelimitedList" else text
        return self._physical(name)

    def _getatt(self, argument: list[str]) -> str:
        name, attribute = argument
        if attribute == "Arn":
            return self._arn(name)
        endpoint = f"https://a1b2c3d4e5.execute-api.{self._region}.amazonaws.com"
        return {"QueueName": self.generated(name), "ApiEndpoint": endpoint, "Version": "7"}[
            attribute
        ]

    def generated(self, name: str) -> str:
        """The name that CloudFormation makes up where the template gives none."""
        return f"{self._stack}-{name[:24]}-1A2B3C4D5E6F"

    def _physical(self, name: str) -> str:
        """What a reference to a resource becomes."""
        kind = self.resources[name]["Type"]
        if kind in NAMES:
            return str(self.value(self.resources[name]["Properties"][NAMES[kind]]))
        forms = {
            "AWS::ApiGatewayV2::Api": "a1b2c3d4e5",
            "AWS::ApiGatewayV2::Authorizer": "abc123",
            "AWS::ApiGatewayV2::Integration": "abcdef1",
            "AWS::KMS::Key": "1234abcd-12ab-34cd-56ef-1234567890ab",
            "AWS::SQS::Queue": f"https://sqs.{self._region}.amazonaws.com/{ACCOUNT}/{self.generated(name)}",
            "AWS::Lambda::Alias": f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{self.generated(name)}:live",
        }
        return forms.get(kind, self.generated(name))

    def _arn(self, name: str) -> str:
        place, physical = f"{self._region}:{ACCOUNT}", self._physical(name)
        forms = {
            "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:{place}:alarm:{physical}",
            "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{place}:table/{physical}",
            "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{physical}",
            "AWS::KMS::Key": f"arn:aws:kms:{place}:key/{physical}",
            "AWS::Logs::LogGroup": f"arn:aws:logs:{place}:log-group:{physical}:*",
            "AWS::SQS::Queue": f"arn:aws:sqs:{place}:{self.generated(name)}",
        }
        return forms[self.resources[name]["Type"]]

    def _sub(self, argument: Any) -> str:
        text, given = argument if isinstance(argument, list) else (argument, {})
        known = {name: self.value(one) for name, one in given.items()}

        def put_in(found: re.Match[str]) -> str:
            name = found[1]
            if name in known:
                return str(known[name])
            return str(self._getatt(name.split(".", 1)) if "." in name else self._ref(name))

        return re.sub(r"\$\{([^}!]+)\}", put_in, text)

    def _if(self, argument: list[Any]) -> Any:
        condition, yes, no = argument
        return self.value(yes if self.holds(condition) else no)

    def _condition(self, name: str) -> bool:
        return self.holds(name)

    def _equals(self, argument: list[Any]) -> bool:
        left, right = argument
        return str(self.value(left)) == str(self.value(right))

    def _not(self, argument: list[Any]) -> bool:
        (condition,) = argument
        return not self.value(condition)

    def _join(self, argument: list[Any]) -> str:
        separator, parts = argument
        return str(separator).join(self.value(parts))

    def _select(self, argument: list[Any]) -> Any:
        index, values = argument
        return self.value(values)[int(index)]

    def _split(self, argument: list[Any]) -> list[str]:
        separator, text = argument
        return str(self.value(text)).split(separator)


def walk(value: Any) -> Iterator[Any]:
    """A value and all values in it."""
    yield value
    parts = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []
    )
    for part in parts:
        yield from walk(part)


def _references(resource: Any) -> set[str]:
    """The names that a resource refers to."""
    found = (
        {resource["DependsOn"]}
        if isinstance(resource.get("DependsOn"), str)
        else set(resource.get("DependsOn", []))
    )
    for one in walk(resource):
        if isinstance(one, dict) and len(one) == 1:
            ((name, argument),) = one.items()
            if name == "Ref":
                found.add(argument)
            elif name == "Fn::GetAtt":
                found.add(argument[0])
            elif name == "Fn::Sub":
                text = argument[0] if isinstance(argument, list) else argument
                found |= set(re.findall(r"\$\{(\w+)[.}]", text))
    return found
