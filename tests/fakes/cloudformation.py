"""template.yaml as CloudFormation deploys it: transformed by SAM, and rendered for parameters.

The renderer knows the functions that the template uses, and gives references plausible values.
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
"""The value of AWS::NoValue, which removes a property."""
ACCOUNT = "123456789012"
CHOSEN = {
    "JwtIssuer": "https://issuer.example/pool",
    "JwtAudience": "app,shop",
    "RewardsState": "ENABLED",
}
"""The parameters that have no default."""
NAMES = {
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::Logs::LogGroup": "LogGroupName",
}
"""The property that holds a resource's name in the template, to which a reference resolves."""
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
    """template.yaml after SAM's translator, which AWS runs too."""
    python = MINISTACK.with_name("python")
    if not python.exists():
        pytest.skip("NOT TESTED as SAM transforms it: `make test` sets up the translator")
    template = json.loads(json.dumps(source()))
    for resource in template["Resources"].values():
        if "CodeUri" in resource["Properties"]:
            resource["Properties"]["CodeUri"] = "s3://bucket/artifact"
    translator = subprocess.run(
        [python, "-c", TRANSFORM],
        input=json.dumps(template),
        env=CREDENTIALS,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(translator.stdout)


class Rendered:
    """The template as CloudFormation deploys it with some parameters.

    Other parameters are CHOSEN or have their defaults.
    """

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
        self._stack = stack
        self._region = region
        self._template = transformed()
        declared = self._template["Parameters"]
        defaults = {
            name: str(parameter["Default"])
            for name, parameter in declared.items()
            if "Default" in parameter
        }
        self.parameters = {**defaults, **CHOSEN, **parameters}
        assert self.parameters.keys() == declared.keys()
        self.resources = {
            name: resource
            for name, resource in self._template["Resources"].items()
            if self._is_deployed(resource)
        }
        self.properties = {
            name: self.value(resource.get("Properties", {}))
            for name, resource in self.resources.items()
        }

    def of_type(self, kind: str) -> dict[str, Any]:
        """The properties of all resources of a type."""
        return {
            name: self.properties[name]
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition of the template is true."""
        return bool(self.value(self._template["Conditions"][condition]))

    def _is_deployed(self, part: Mapping[str, Any]) -> bool:
        """Whether the condition of a resource or an output, if it has one, is true."""
        return "Condition" not in part or self.holds(part["Condition"])

    def broken_rules(self) -> list[str]:
        """The descriptions of the template's rules that the parameters break."""
        return [
            assertion["AssertDescription"]
            for rule in self._template["Rules"].values()
            if self.value(rule.get("RuleCondition", True))
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return {
            name: self.value(output["Value"])
            for name, output in self._template["Outputs"].items()
            if self._is_deployed(output)
        }

    def document(self) -> dict[str, Any]:
        """A template of the same stack without functions and parameters."""
        kept = ("Type", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy")
        resources = {}
        for name, resource in self.resources.items():
            attributes = {key: resource[key] for key in kept if key in resource}
            resources[name] = {**attributes, "Properties": self.properties[name]}
        return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}

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
        """A value of the template after CloudFormation resolves its functions."""
        if isinstance(given, list):
            return [value for value in map(self.value, given) if value is not NOTHING]
        if not isinstance(given, dict):
            return given
        if len(given) == 1:
            ((name, argument),) = given.items()
            if name in {"Ref", "Condition"} or name.startswith("Fn::"):
                return getattr(self, f"_{name.removeprefix('Fn::').lower()}")(argument)
        values = {name: self.value(part) for name, part in given.items()}
        return {name: value for name, value in values.items() if value is not NOTHING}

    def _ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            kind = self._template["Parameters"][name]["Type"]
            text = self.parameters[name]
            if kind == "Number":
                return int(text)
            return text.split(",") if kind == "CommaDelimitedList" else text
        return self._physical(name)

    def _getatt(self, argument: list[str]) -> str:
        name, attribute = argument
        if attribute == "Arn":
            return self._arn(name)
        values = {
            "ApiEndpoint": f"https://a1b2c3d4e5.execute-api.{self._region}.amazonaws.com",
            "QueueName": self.generated(name),
            "Version": "7",
        }
        return values[attribute]

    def generated(self, name: str) -> str:
        """The name that CloudFormation generates for a resource without a name."""
        return f"{self._stack}-{name[:24]}-1A2B3C4D5E6F"

    def _physical(self, name: str) -> str:
        """The value of a reference to a resource."""
        kind = self.resources[name]["Type"]
        if kind in NAMES:
            return str(self.value(self.resources[name]["Properties"][NAMES[kind]]))
        generated = self.generated(name)
        function = f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{generated}"
        forms = {
            "AWS::ApiGatewayV2::Api": "a1b2c3d4e5",
            "AWS::ApiGatewayV2::Authorizer": "abc123",
            "AWS::ApiGatewayV2::Integration": "abcdef1",
            "AWS::KMS::Key": "1234abcd-12ab-34cd-56ef-1234567890ab",
            "AWS::SQS::Queue": f"https://sqs.{self._region}.amazonaws.com/{ACCOUNT}/{generated}",
            "AWS::Lambda::Alias": f"{function}:live",
        }
        return forms.get(kind, generated)

    def _arn(self, name: str) -> str:
        place = f"{self._region}:{ACCOUNT}"
        physical = self._physical(name)
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
        variables = {name: self.value(value) for name, value in given.items()}

        def resolve(match: re.Match[str]) -> str:
            name = match[1]
            if name in variables:
                return str(variables[name])
            if "." in name:
                return self._getatt(name.split(".", 1))
            return str(self._ref(name))

        return re.sub(r"\$\{([^}!]+)\}", resolve, text)

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
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from walk(part)


def _references(resource: Any) -> set[str]:
    """The names that a resource refers to."""
    depends_on = resource.get("DependsOn", [])
    names = {depends_on} if isinstance(depends_on, str) else set(depends_on)
    for part in walk(resource):
        if isinstance(part, dict) and len(part) == 1:
            ((name, argument),) = part.items()
            if name == "Ref":
                names.add(argument)
            elif name == "Fn::GetAtt":
                names.add(argument[0])
            elif name == "Fn::Sub":
                text = argument[0] if isinstance(argument, list) else argument
                names |= set(re.findall(r"\$\{(\w+)[.}]", text))
    return names
