"""Deploys the stack of template.yaml: SAM's own translator turns the template into
CloudFormation, and moto, a simulation of AWS, deploys that."""

import ast
import copy
import fnmatch
import functools
import io
import json
import logging
import os
import pathlib
import re
import zipfile

import boto3
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = pathlib.Path(__file__).resolve().parent.parent.parent / "template.yaml"
REGION = "eu-west-1"
# The credentials of a role, as on Lambda, have a session token.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}
BUCKET = "artifacts"

# moto's CloudFormation does not know these. `Stack` creates them through the
# services' own APIs, with the properties that CloudFormation resolved.
CREATED_HERE = {
    "AWS::Lambda::EventSourceMapping",
    "AWS::SQS::QueuePolicy",
}
# moto does not know these either, but no message passes through them.
LEFT_OUT = {
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
}

# The prefix of the outputs that stand for intrinsic functions.
RESOLVED = "Resolved"

# It warns about its own features that are off.
logging.getLogger("samtranslator").setLevel(logging.ERROR)


class Stack:
    """A deployed stack, as AWS's APIs describe it."""

    def __init__(self, endpoint, name, **parameters):
        self.name = name
        self._endpoint = endpoint
        self._parameters = {key: str(value) for key, value in parameters.items()}
        self._package()
        self._template = self._translated()
        self._deploy()
        self._create_the_rest()

    def client(self, service):
        return boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def _package(self):
        """Uploads the code, as `sam package` does. Nothing unpacks it: the bootstrap
        runs from where it was built."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("bootstrap", "")
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key="function.zip", Body=archive.getvalue())

    def _translated(self):
        template = yaml_parse(TEMPLATE.read_text())
        template["Resources"]["Function"]["Properties"]["CodeUri"] = {
            "Bucket": BUCKET,
            "Key": "function.zip",
        }
        # The translator asks boto3 for a Region to write ARNs with.
        os.environ["AWS_DEFAULT_REGION"] = REGION
        translated = transform(
            template, dict(self._parameters), ManagedPolicyLoader(self.client("iam"))
        )
        return self._decided(translated)

    def _decided(self, template):
        """Returns the template with its conditions decided by the parameters: an
        output, as which `_deployable` has CloudFormation resolve functions, cannot be
        the statement of a policy."""
        defaults = {name: each["Default"] for name, each in template["Parameters"].items()}
        values = {**defaults, **self._parameters, "AWS::Partition": "aws"}
        conditions = {
            name: holds(condition, values) for name, condition in template["Conditions"].items()
        }
        decided = {
            section: {
                name: part
                for name, part in template[section].items()
                if conditions.get(part.get("Condition"), True)
            }
            for section in ("Resources", "Outputs")
        }
        return {**template, **decide(decided, conditions)}

    def _deploy(self):
        template = self._deployable()
        s3 = self.client("s3")
        s3.put_object(Bucket=BUCKET, Key="template.json", Body=json.dumps(template))
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=self.name,
            # Too large to be sent along: CloudFormation takes 51,200 bytes.
            TemplateURL=f"https://{BUCKET}.s3.{REGION}.amazonaws.com/template.json",
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in self._parameters.items()
            ],
        )
        [described] = cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        assert described["StackStatus"] == "CREATE_COMPLETE", described
        created = cloudformation.describe_stack_resources(StackName=self.name)["StackResources"]
        forgotten = set(template["Resources"]) - {entry["LogicalResourceId"] for entry in created}
        assert not forgotten, f"moto has not created {forgotten}"
        self.outputs = {
            output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]
        }

    def _deployable(self):
        """Returns the template without the resources that moto cannot create and the
        outputs that need them. Intrinsic functions in these resources' properties
        become outputs, so that CloudFormation resolves them."""
        template = copy.deepcopy(self._template)
        resources, outputs = template["Resources"], template["Outputs"]
        missing = {
            name: resources.pop(name)
            for name, resource in self._template["Resources"].items()
            if resource["Type"] in CREATED_HERE | LEFT_OUT
        }
        for name, output in self._template["Outputs"].items():
            if mentions(output, missing):
                del outputs[name]
        for name, resource in self._template["Resources"].items():
            # moto's Lambda loses some properties: see `function_properties`.
            if resource["Type"] in CREATED_HERE | {"AWS::Lambda::Function"}:
                for key, intrinsic in intrinsics(resource["Properties"], name):
                    if not mentions(intrinsic, missing):
                        outputs[RESOLVED + key] = {"Value": intrinsic}
        return template

    def _create_the_rest(self):
        aws_lambda = self.client("lambda")
        model = aws_lambda.meta.service_model
        shape = model.operation_model("CreateEventSourceMapping").input_shape
        for _, properties in self._resources("AWS::SQS::QueuePolicy"):
            for queue in properties["Queues"]:
                self.client("sqs").set_queue_attributes(
                    QueueUrl=queue,
                    Attributes={"Policy": json.dumps(properties["PolicyDocument"])},
                )
        for _, properties in self._resources("AWS::Lambda::EventSourceMapping"):
            assert properties.get("Enabled", True) is True, properties
            # moto runs an enabled mapping itself, with the code in a container,
            # and takes every response for success. `event_source_mapping` follows
            # Lambda's rules instead.
            properties["Enabled"] = False
            aws_lambda.create_event_source_mapping(**typed(properties, shape))

    def _resources(self, kind):
        for name, resource in self._template["Resources"].items():
            if resource["Type"] == kind:
                yield name, self._resolved(resource["Properties"], name)

    def _resolved(self, value, path):
        """Returns `value`, which is at `path`, with its intrinsic functions resolved."""
        if is_intrinsic(value):
            return self.outputs[RESOLVED + path]
        if isinstance(value, dict):
            return {key: self._resolved(part, path + plain(key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._resolved(part, path + str(at)) for at, part in enumerate(value)]
        return value

    @property
    def function_properties(self):
        """The function's properties in CloudFormation, with LoggingConfig and
        DeadLetterConfig, which moto's Lambda drops."""
        [(_, properties)] = self._resources("AWS::Lambda::Function")
        return properties

    @property
    def function_configuration(self):
        """The function that the event source mapping invokes, as Lambda
        describes it."""
        return self.client("lambda").get_function_configuration(
            FunctionName=self.event_source_mapping["FunctionArn"]
        )

    @property
    def event_source_mapping(self):
        [mapping] = self.client("lambda").list_event_source_mappings(
            EventSourceArn=self.outputs["WorkQueueArn"]
        )["EventSourceMappings"]
        return mapping

    def queue_attributes(self, url):
        return self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
            "Attributes"
        ]

    @functools.cached_property
    def role_statements(self):
        """The statements of the function's role, which are all Allow."""
        iam = self.client("iam")
        role = {"RoleName": self.outputs["RoleArn"].rpartition("/")[2]}
        statements = []
        for name in iam.list_role_policies(**role)["PolicyNames"]:
            document = iam.get_role_policy(**role, PolicyName=name)["PolicyDocument"]
            # moto stores the document as Python writes it.
            statements += ast.literal_eval(str(document))["Statement"]
        assert {statement["Effect"] for statement in statements} == {"Allow"}, statements
        return statements

    def permits(self, action, resource):
        """Returns whether the function's role permits an action. moto does not check
        it."""
        return any(
            matches(statement["Action"], action) and matches(statement["Resource"], resource)
            for statement in self.role_statements
        )

    def environment(self):
        """Returns the environment in which Lambda starts the function: the deployed
        variables and those that Lambda sets."""
        configuration = self.function_configuration
        logging_config = self.function_properties["LoggingConfig"]
        own = configuration["Environment"]["Variables"]
        return {
            # Text on Lambda; moto keeps the numbers of the parameters.
            **{name: str(value) for name, value in own.items()},
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_NAME": configuration["FunctionName"],
            "AWS_LAMBDA_FUNCTION_VERSION": configuration["Version"],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(configuration["Timeout"]),
            "AWS_LAMBDA_LOG_GROUP_NAME": logging_config["LogGroup"],
            "AWS_LAMBDA_LOG_FORMAT": logging_config["LogFormat"],
            "AWS_LAMBDA_LOG_LEVEL": logging_config["ApplicationLogLevel"],
            "_HANDLER": configuration["Handler"],
            "TZ": ":UTC",
        }


NO_VALUE = {"Ref": "AWS::NoValue"}


def holds(condition, values):
    """Returns whether a condition holds for the parameters' values."""
    [(function, argument)] = condition.items()
    if function == "Fn::Not":
        return not holds(argument[0], values)
    assert function == "Fn::Equals", condition
    first, second = (text_of(each, values) for each in argument)
    return first == second


def text_of(value, values):
    if isinstance(value, str):
        return value
    [(function, argument)] = value.items()
    if function == "Ref":
        return str(values[argument])
    # Joins a list parameter, whose value here is text already.
    assert function == "Fn::Join", value
    return text_of(argument[1], values)


def decide(value, conditions):
    """Returns `value` with each Fn::If replaced by the branch that is chosen."""
    if isinstance(value, dict):
        if value.keys() == {"Fn::If"}:
            name, then, otherwise = value["Fn::If"]
            return decide(then if conditions[name] else otherwise, conditions)
        parts = {key: decide(part, conditions) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != NO_VALUE}
    if isinstance(value, list):
        return [part for part in (decide(part, conditions) for part in value) if part != NO_VALUE]
    return value


def matches(patterns, value):
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def is_intrinsic(value):
    if not isinstance(value, dict) or len(value) != 1:
        return False
    [name] = value
    return name == "Ref" or name.startswith("Fn::")


def intrinsics(value, path):
    """Yields each intrinsic function in `value`, with a name made of its path."""
    if is_intrinsic(value):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from intrinsics(part, path + plain(key))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from intrinsics(part, path + str(at))


def plain(key):
    """Returns a key's letters and digits: all that an output's name may have."""
    return "".join(character for character in key if character.isalnum())


def mentions(value, resources):
    """Returns whether `value` refers to one of these resources."""
    if isinstance(value, dict):
        referred = [value.get("Ref"), *value.get("Fn::GetAtt", [])[:1]]
        # In a text as ${Name} or ${Name.Attribute}.
        referred += re.findall(r"\$\{(\w+)", str(value.get("Fn::Sub", "")))
        return any(name in resources for name in referred) or mentions(
            list(value.values()), resources
        )
    return isinstance(value, list) and any(mentions(part, resources) for part in value)


def typed(value, shape):
    """Returns `value`, whose parts are text like all outputs, with the types that
    the API's shape has."""
    if shape.type_name == "structure":
        return {key: typed(part, shape.members[key]) for key, part in value.items()}
    if shape.type_name == "list":
        return [typed(part, shape.member) for part in value]
    return int(value) if shape.type_name == "integer" else value
