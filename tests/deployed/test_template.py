#!/usr/bin/env python3
"""Tests template.yaml: its source, its translation by SAM's own translator, and
both against the function.

A translation still contains CloudFormation's functions. `Stack` resolves them for
given parameters, as CloudFormation would.
"""

import datetime
import itertools
import json
import logging
import os
import re
import subprocess
import tomllib
import typing
import unittest
import unittest.mock

import emulator
from emulator import ROOT
from events import assets, request, sample
from runtime_api import ENVIRONMENT

emulator.install_requirements()

import yaml  # noqa: E402
from samcli.cli.types import CfnParameterOverridesType  # noqa: E402
from samtranslator.translator.arn_generator import ArnGenerator  # noqa: E402
from samtranslator.translator.transform import transform  # noqa: E402

# It warns of metrics of its own, which go nowhere here.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

SOURCE = (ROOT / "template.yaml").read_text()
LINES = SOURCE.split("\n")

STACK = "sitewise-disassociator"
ACCOUNT = "123456789012"

# The wildcards of IAM statements, by statement and key. The template says what
# each stands for; here is why it is allowed.
WILDCARDS = {
    # A Deny, the wider the safer.
    ("TlsOnly", "Action", "sqs:*"),
    # Where no projects are named; of one account and Region all the same.
    (
        "DisassociateAssets",
        "Resource",
        "arn:${AWS::Partition}:iotsitewise:${AWS::Region}:${AWS::AccountId}:project/*",
    ),
    # "Actions, resources, and condition keys for AWS X-Ray", Service
    # Authorization Reference: these actions have no resource types.
    ("WriteTraces", "Resource", "*"),
}

# The metrics of AWS's own that may be used, with their sets of dimensions.
AWS_METRICS = {
    # "Available CloudWatch metrics for Amazon SQS", Amazon SQS Developer Guide
    "AWS/SQS": (
        {
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesVisible",
        },
        [{"QueueName"}],
    ),
    # "Types of metrics for Lambda functions", AWS Lambda Developer Guide
    "AWS/Lambda": (
        {
            "AsyncEventsDropped",
            "ConcurrentExecutions",
            "DeadLetterErrors",
            "Duration",
            "Errors",
            "Invocations",
            "Throttles",
        },
        [{"FunctionName"}],
    ),
    # "Monitoring Amazon EventBridge", Amazon EventBridge User Guide: the second
    # is for rules of a bus other than the default.
    "AWS/Events": (
        {"FailedInvocations", "InvocationsFailedToBeSentToDlq"},
        [{"RuleName"}, {"RuleName", "EventBusName"}],
    ),
}

NOTHING = object()


class Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions as the long ones."""

    def function(self, suffix, node):
        name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
        if isinstance(node, yaml.ScalarNode):
            value = self.construct_scalar(node)
            return {name: value.split(".", 1) if suffix == "GetAtt" else value}
        if isinstance(node, yaml.SequenceNode):
            return {name: self.construct_sequence(node, deep=True)}
        return {name: self.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", Loader.function)


def read():
    return yaml.load(SOURCE, Loader)


TEMPLATE = read()
PARAMETERS = TEMPLATE["Parameters"]


def translate(parameters, region):
    """Returns SAM's translation of the template, as if the code were uploaded."""

    class NoManagedPolicies:
        def load(self):
            return {}

    template = read()
    template["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/key"
    with (
        unittest.mock.patch.dict(os.environ, AWS_DEFAULT_REGION=region),
        unittest.mock.patch.object(ArnGenerator, "BOTO_SESSION_REGION_NAME", region),
    ):
        return transform(template, parameters, NoManagedPolicies())


class Stack:
    """A translation as CloudFormation would resolve it."""

    def __init__(self, region="eu-west-1", partition="aws", **parameters):
        defaults = {name: parameter["Default"] for name, parameter in PARAMETERS.items()}
        self.values = {name: str(value) for name, value in {**defaults, **parameters}.items()}
        self.pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": NOTHING,
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::StackName": STACK,
            "AWS::URLSuffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
        }
        self.template = translate(self.values, region)
        # CloudFormation creates no resource or output whose condition is false.
        for section in ("Resources", "Outputs"):
            self.template[section] = {
                name: part
                for name, part in self.template[section].items()
                if "Condition" not in part or self.condition(part["Condition"])
            }
        self.resources = self.resolve(self.template["Resources"])
        self.outputs = self.resolve(self.template["Outputs"])

    def properties(self, name):
        return self.resources[name]["Properties"]

    def of_type(self, kind):
        return {
            name: resource["Properties"]
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def is_allowed(self):
        """Returns whether the template's rules accept the parameters."""
        return all(
            self.resolve(assertion["Assert"])
            for rule in self.template["Rules"].values()
            if self.resolve(rule["RuleCondition"])
            for assertion in rule["Assertions"]
        )

    def resolve(self, value):
        if isinstance(value, list):
            resolved = (self.resolve(item) for item in value)
            return [item for item in resolved if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            function = getattr(self, "fn_" + name.removeprefix("Fn::").lower(), None)
            if function and (name == "Ref" or name.startswith("Fn::")):
                return function(argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NOTHING}

    def fn_ref(self, name):
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.values:
            value = self.values[name]
            is_list = PARAMETERS[name]["Type"] == "CommaDelimitedList"
            return value.split(",") if is_list else value
        resource = self.template["Resources"][name]
        if resource["Type"] == "AWS::SQS::Queue":
            return f"https://sqs.{self.pseudo['AWS::Region']}.example/{ACCOUNT}/{name}"
        if resource["Type"] == "AWS::CloudWatch::Dashboard":
            return self.resolve(resource["Properties"]["DashboardName"])
        return name

    def fn_getatt(self, argument):
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        resource = self.template["Resources"][name]
        if attribute != "Arn":
            return f"{name}.{attribute}"
        service = resource["Type"].split("::")[1].lower()
        arn = f"arn:{self.pseudo['AWS::Partition']}:{service}:{self.pseudo['AWS::Region']}"
        if resource["Type"] == "AWS::Events::Rule":
            bus = self.values["EventBusName"]
            name = f"rule/{name}" if bus == "default" else f"rule/{bus}/{name}"
        return f"{arn}:{ACCOUNT}:{name}"

    def fn_sub(self, argument):
        text, variables = (argument, {}) if isinstance(argument, str) else argument

        def replace(match):
            name = match[1]
            if name in variables:
                return self.resolve(variables[name])
            return str(self.fn_getatt(name) if "." in name else self.fn_ref(name))

        return re.sub(r"\$\{([^!}]+)\}", replace, text)

    def fn_if(self, argument):
        condition, then, otherwise = argument
        return self.resolve(then if self.condition(condition) else otherwise)

    def condition(self, name):
        return self.resolve(self.template["Conditions"][name])

    def fn_equals(self, argument):
        first, second = self.resolve(argument)
        return first == second

    def fn_not(self, argument):
        return not self.resolve(argument)[0]

    def fn_contains(self, argument):
        values, value = self.resolve(argument)
        return value in values

    def fn_join(self, argument):
        separator, values = self.resolve(argument)
        return separator.join(values)

    def fn_split(self, argument):
        separator, value = self.resolve(argument)
        return value.split(separator)

    def fn_select(self, argument):
        index, values = self.resolve(argument)
        return values[int(index)]


class Metric(typing.NamedTuple):
    namespace: str
    name: str
    dimensions: frozenset  # of (name, value)


def metrics_of_alarm(alarm):
    queries = alarm.get("Metrics", [{"MetricStat": {"Metric": alarm}}])
    for metric in (query["MetricStat"]["Metric"] for query in queries if "MetricStat" in query):
        dimensions = {(each["Name"], each["Value"]) for each in metric["Dimensions"]}
        yield Metric(metric["Namespace"], metric["MetricName"], frozenset(dimensions))


def period_of(alarm):
    """Returns the seconds of an alarm's period, which all its metrics have."""
    queries = alarm.get("Metrics", [{"MetricStat": alarm}])
    [period] = {query["MetricStat"]["Period"] for query in queries if "MetricStat" in query}
    return period


def value_of(alarm, **metrics):
    """Returns the value of an alarm's expression, which reads like Python; None is
    a metric without data."""
    [expression] = [query["Expression"] for query in alarm["Metrics"] if "Expression" in query]
    functions = {
        "IF": lambda condition, then, otherwise: then if condition else otherwise,
        "FILL": lambda value, otherwise: otherwise if value is None else value,
    }
    return eval(expression, functions | metrics)


def metrics_of_widget(widget):
    """Yields the widget's metrics; `.` repeats a part of the row above, `...` all."""
    above = []
    for row in widget["properties"].get("metrics", []):
        row = [part for part in row if isinstance(part, str)]
        if not row:
            continue
        if row[0] == "...":
            row = above[: len(above) - len(row) + 1] + row[1:]
        row = [above[index] if part == "." else part for index, part in enumerate(row)]
        above = row
        namespace, name, *dimensions = row
        pairs = zip(dimensions[::2], dimensions[1::2], strict=True)
        yield Metric(namespace, name, frozenset(pairs))


def widgets_of(stack):
    [dashboard] = stack.of_type("AWS::CloudWatch::Dashboard").values()
    return json.loads(dashboard["DashboardBody"])["widgets"]


def metrics_of(stack):
    """Returns every metric that an alarm or the dashboard uses."""
    alarms = stack.of_type("AWS::CloudWatch::Alarm").values()
    return set(
        itertools.chain(
            *(metrics_of_alarm(alarm) for alarm in alarms),
            *(metrics_of_widget(widget) for widget in widgets_of(stack)),
        )
    )


def metrics_of_log(lines):
    """Returns every metric that log lines have in the embedded metric format."""
    metrics = set()
    for line in lines:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names, metric in itertools.product(directive["Dimensions"], directive["Metrics"]):
                dimensions = frozenset((name, line[name]) for name in names)
                metrics.add(Metric(directive["Namespace"], metric["Name"], dimensions))
    return metrics


def other_value(parameter):
    """Returns a value that the parameter accepts and that is not its default."""
    if "AllowedValues" in parameter:
        return next(value for value in parameter["AllowedValues"] if value != parameter["Default"])
    return parameter["Default"] + 1 if parameter["Type"] == "Number" else "Other"


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings(list(value.keys()))
        yield from strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def listed(value):
    return value if isinstance(value, list) else [value]


def nodes(node, path=()):
    """Yields every scalar of a YAML node, with the keys that lead to it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from nodes(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from nodes(value, path)
    else:
        yield path, node


def statements_of(node):
    """Yields every IAM statement in a YAML node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "Statement":
                for statement in value.value:
                    # A function, !If, has the statement and other parts in a list.
                    is_if = isinstance(statement, yaml.SequenceNode)
                    for part in statement.value if is_if else [statement]:
                        if isinstance(part, yaml.MappingNode):
                            yield part
            yield from statements_of(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from statements_of(value)


class Parameters(unittest.TestCase):
    def test_each_is_described_and_in_one_group(self):
        groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in groups for name in group["Parameters"]]
        self.assertEqual(sorted(grouped), sorted(PARAMETERS))
        for name, parameter in PARAMETERS.items():
            with self.subTest(name):
                self.assertRegex(parameter.get("Description", ""), r"^[A-Z].{30,}\.$")
                self.assertIn("Default", parameter)

    def test_each_is_used(self):
        rest = {key: value for key, value in TEMPLATE.items() if key in ("Conditions", "Resources")}
        text = json.dumps(rest)
        for name in PARAMETERS:
            with self.subTest(name):
                self.assertTrue(f'{{"Ref": "{name}"}}' in text or f"${{{name}}}" in text)

    def test_the_documentation_lists_each_with_its_default(self):
        text = (ROOT / "docs" / "configuration.md").read_text()
        [table] = re.findall(r"\| parameter \| default .*\n\|.*\n((?:\|.*\n)+)", text)
        rows = [
            re.match(r"\| `(\w+)` \| (?:`(.+?)`|none) \| .+ \|$", row)
            for row in table.split("\n")[:-1]
        ]
        self.assertNotIn(None, rows)
        self.assertEqual(
            {row[1]: row[2] or "" for row in rows},
            {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()},
        )

    def test_samconfig_suggests_overrides_that_sam_and_the_template_accept(self):
        text = (ROOT / "samconfig.toml").read_text()
        uncommented = re.sub(r'^# (?=parameter_overrides|tags|    "|\])', "", text, flags=re.M)
        deploy = tomllib.loads(uncommented)["default"]["deploy"]["parameters"]
        suggested = tuple(deploy["parameter_overrides"])
        overrides = CfnParameterOverridesType().convert(suggested, None, None)
        self.assertEqual(len(overrides), len(suggested))
        self.assertLessEqual(overrides.keys(), PARAMETERS.keys())
        for name, value in overrides.items():
            self.assertRegex(value, PARAMETERS[name].get("AllowedPattern", "."))
        self.assertTrue(deploy["tags"])

    def test_patterns_accept_valid_values_only(self):
        for name, good, bad in [
            (
                "MetricsNamespace",
                ["SiteWiseDisassociator", "Plant 7/SiteWise#1:a_b-c.d", "n" * 255],
                ["", " ", ":a", "AWS/Lambda", "a\nb", "ä", "n" * 256],
            ),
            (
                "EventBusName",
                ["default", "maintenance_1.b-c"],
                ["", "arn:aws:events:eu-west-1:123456789012:event-bus/b", "aws.partner/a/b"],
            ),
            (
                "AlarmTopicArn",
                [
                    "",
                    f"arn:aws:sns:eu-west-1:{ACCOUNT}:t",
                    f"arn:aws-us-gov:sns:us-gov-west-1:{ACCOUNT}:t_1-x",
                ],
                [
                    "topic",
                    f"arn:aws:sqs:eu-west-1:{ACCOUNT}:t",
                    f"arn:aws:sns:eu-west-1:{ACCOUNT}:t.fifo",
                ],
            ),
            (
                "PermissionsBoundaryArn",
                ["", f"arn:aws:iam::{ACCOUNT}:policy/b", "arn:aws-cn:iam::aws:policy/job/b"],
                ["boundary", f"arn:aws:iam::{ACCOUNT}:role/b"],
            ),
            ("ProjectTagKey", ["", "plant:line 1/a=b+c@d.e_f-g"], ['a"b', "a\\b", "k" * 129]),
            ("ProjectTagValue", ["", "v" * 256], ['a"b', "a\\b", "v" * 257]),
        ]:
            pattern = PARAMETERS[name]["AllowedPattern"]
            for value in good:
                self.assertIsNotNone(re.fullmatch(pattern, value), (name, value))
            for value in bad:
                self.assertIsNone(re.fullmatch(pattern, value), (name, value))

    def test_batch_sizes_that_lambda_refuses_are_refused_before(self):
        for window, size, is_allowed in [
            (0, 10, True),
            (0, 1, True),
            (0, 11, False),
            (1, 10000, True),
        ]:
            stack = Stack(BatchWindow=window, BatchSize=size)
            self.assertEqual(stack.is_allowed(), is_allowed, (window, size))


class Function(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.function = cls.stack.properties("Function")
        cls.queue = cls.stack.properties("WorkQueue")
        [cls.mapping] = cls.stack.of_type("AWS::Lambda::EventSourceMapping").values()

    def test_a_failed_record_is_named_and_no_other(self):
        self.assertEqual(self.mapping["FunctionResponseTypes"], ["ReportBatchItemFailures"])
        self.assertEqual(self.mapping["EventSourceArn"], self.stack.fn_getatt("WorkQueue.Arn"))

    def test_no_message_is_redelivered_while_it_is_processed(self):
        window = PARAMETERS["BatchWindow"]["MaxValue"]
        self.assertGreaterEqual(
            self.queue["VisibilityTimeout"], 6 * self.function["Timeout"] + window
        )

    def test_a_message_is_dead_lettered_late_and_before_it_expires(self):
        count = PARAMETERS["MaxReceiveCount"]
        visible = self.queue["VisibilityTimeout"]
        self.assertGreaterEqual(count["MinValue"], 5)
        self.assertGreaterEqual(count["Default"], count["MinValue"])
        self.assertIn(f"times {visible // 60} minutes", count["Description"])
        documentation = (ROOT / "docs" / "configuration.md").read_text()
        self.assertIn(f"times {visible // 60} minutes", documentation)
        self.assertIn(f"more than {count['Default'] * visible // 3600} hours", count["Description"])
        dead_letters = self.stack.properties("DeadLetterQueue")
        retention = dead_letters["MessageRetentionPeriod"]
        self.assertGreaterEqual(retention, self.queue["MessageRetentionPeriod"])
        # The age of a message counts on in the dead-letter queue.
        alarm = self.stack.properties("DeadLettersExpireAlarm")
        last = count["MaxValue"] * visible
        day = datetime.timedelta(days=1).total_seconds()
        self.assertGreater(retention - last, alarm["Period"] * alarm["EvaluationPeriods"] + day)

    def test_failed_asynchronous_events_go_to_the_dead_letter_queue(self):
        arn = self.stack.fn_getatt("DeadLetterQueue.Arn")
        self.assertEqual(self.function["DeadLetterConfig"], {"TargetArn": arn})
        self.assertEqual(self.queue["RedrivePolicy"]["deadLetterTargetArn"], arn)
        [statement] = [
            statement
            for policy in self.stack.properties("Role")["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Action"] == "sqs:SendMessage"
        ]
        self.assertEqual(set(statement["Resource"]), {arn, self.stack.fn_getatt("WorkQueue.Arn")})

    def test_each_parameter_of_the_function_changes_what_the_mapping_invokes(self):
        source = json.dumps(TEMPLATE["Resources"]["Function"])
        names = re.findall(r'{"Ref": "(\w+)"}', source)
        names = [name for name in names if name in PARAMETERS]
        self.assertGreaterEqual(len(names), 9)
        before = self.invoked(self.stack)
        for name in names:
            with self.subTest(name):
                stack = Stack(**{name: other_value(PARAMETERS[name])})
                self.assertNotEqual(self.invoked(stack), before)

    def invoked(self, stack):
        """Returns the mapping and the resource that it invokes. An alias would not
        change: SAM derives the name of its version from the template's text."""
        [mapping] = stack.of_type("AWS::Lambda::EventSourceMapping").values()
        return mapping, stack.resources[mapping["FunctionName"]]

    def test_dead_letters_and_logs_survive_the_stack(self):
        kept = {
            name
            for name, resource in self.stack.resources.items()
            if resource.get("DeletionPolicy") == "RetainExceptOnCreate"
            and resource.get("UpdateReplacePolicy") == "Retain"
        }
        self.assertEqual(kept, {"DeadLetterQueue", "LogGroup"})

    def test_the_log_level_that_shows_events_is_not_offered(self):
        self.assertNotIn("TRACE", PARAMETERS["LogLevel"]["AllowedValues"])


class Configuration(emulator.EmulatedFunction):
    """The template's variables against the function, which is asked itself."""

    NUMBERS = {"FAN_OUT_ASSETS": "FanOutAssets", "CALL_CONCURRENCY": "CallConcurrency"}

    @classmethod
    def setUpClass(cls):
        cls.variables = Stack().properties("Function")["Environment"]["Variables"]

    def error_of(self, variable, value):
        """Returns the error with which a value stops the cold start."""
        run = subprocess.run(
            emulator.BOOTSTRAP,
            env={**ENVIRONMENT, "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", variable: value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertNotEqual(run.returncode, 0)
        return json.loads(run.stdout)["error"]

    def test_the_function_reads_each_variable(self):
        # Any service name is allowed: `OwnLog` finds it in the log.
        for variable in self.variables.keys() - {"POWERTOOLS_SERVICE_NAME"}:
            with self.subTest(variable):
                error = self.error_of(variable, "\n")
                self.assertTrue(error.startswith(f"{variable}: expected "), error)

    def test_parameters_have_the_functions_limits(self):
        for variable, name in self.NUMBERS.items():
            self.assertEqual(self.variables[variable], Stack().values[name])
            least, most = (PARAMETERS[name][limit] for limit in ("MinValue", "MaxValue"))
            for value in least - 1, most + 1:
                self.assertEqual(
                    self.error_of(variable, str(value)),
                    f'{variable}: expected a whole number from {least} to {most}, found "{value}"',
                )
            for value in least, most:
                self.assertNotIn(variable, self.error_of(variable, str(value)))

    def test_parameters_have_the_functions_defaults(self):
        fan_out, concurrency = (PARAMETERS[name]["Default"] for name in self.NUMBERS.values())
        self.start_simulator()
        self.start_function(
            AWS_ENDPOINT_URL=self.simulator,
            AWS_LAMBDA_FUNCTION_TIMEOUT="2",
            **self.queue_variables(),
        )
        largest = request(1, assets(*range(fan_out)))
        self.seed(largest)
        larger = self.invoke(request(1, assets(*range(fan_out + 1))))
        self.assertEqual((larger["status"], larger["calls"]), ("accepted", 0))
        # No call ends, so none makes room for another.
        self.fault("disassociate:stall")
        self.invoke(largest)
        self.assertGreater(fan_out / 100, concurrency)
        self.assertEqual(len(self.calls()), concurrency)


class Access(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()

    def test_wildcards_are_few_and_explained_where_they_stand(self):
        found = set()
        for statement in statements_of(yaml.compose(SOURCE, Loader)):
            scalars = list(nodes(statement))
            sid = next((node.value for path, node in scalars if path == ("Sid",)), None)
            for path, node in scalars:
                if path[0] in ("Effect", "Sid", "Principal", "Condition"):
                    continue
                if not re.search(r"[*?]", node.value):
                    continue
                line = node.start_mark.line
                with self.subTest(line=line + 1):
                    wildcard = (sid, path[0], node.value)
                    self.assertIn(wildcard, WILDCARDS)
                    found.add(wildcard)
                    is_explained = LINES[line - 1].strip().startswith("#") or " # " in LINES[line]
                    self.assertTrue(is_explained, "has no comment")
        self.assertEqual(found, WILDCARDS)

    # SAM may add policies of its own.
    def test_the_translation_allows_no_more(self):
        allowed = {(sid, key, self.stack.fn_sub(value)) for sid, key, value in WILDCARDS}
        documents = [
            document
            for resource in self.stack.resources.values()
            for document in self.documents(resource["Properties"])
        ]
        self.assertGreaterEqual(len(documents), 4)
        for statement in (each for document in documents for each in document["Statement"]):
            with self.subTest(statement):
                keys = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
                self.assertLessEqual(set(statement), keys)
                for key in ("Action", "Resource"):
                    for value in listed(statement.get(key, [])):
                        if re.search(r"[*?]", value):
                            self.assertIn((statement.get("Sid"), key, value), allowed)
                if statement["Effect"] == "Allow":
                    self.assertNotIn("*", list(strings(statement.get("Principal", {}))))

    def documents(self, value):
        if isinstance(value, dict):
            if isinstance(value.get("Statement"), list):
                yield value
            for item in value.values():
                yield from self.documents(item)
        elif isinstance(value, list):
            for item in value:
                yield from self.documents(item)

    def test_the_role_may_do_what_it_needs(self):
        [policy] = self.stack.properties("Role")["Policies"]
        actions = [
            action
            for statement in policy["PolicyDocument"]["Statement"]
            for action in listed(statement["Action"])
        ]
        self.assertEqual(
            sorted(actions),
            [
                "iotsitewise:BatchDisassociateProjectAssets",
                "iotsitewise:DescribeProject",
                "iotsitewise:ListProjectAssets",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:ReceiveMessage",
                "sqs:SendMessage",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
            ],
        )

    def test_messages_are_read_from_the_work_queue_alone(self):
        [policy] = self.stack.properties("Role")["Policies"]
        [statement] = [
            statement
            for statement in policy["PolicyDocument"]["Statement"]
            if "sqs:ReceiveMessage" in listed(statement["Action"])
        ]
        self.assertEqual(statement["Resource"], self.stack.fn_getatt("WorkQueue.Arn"))

    def test_projects_that_are_named_are_the_only_ones(self):
        arns = [f"arn:aws:iotsitewise:eu-west-1:{ACCOUNT}:project/{name}" for name in "ab"]
        for parameter, resource in [
            ("", f"arn:aws:iotsitewise:eu-west-1:{ACCOUNT}:project/*"),
            (",".join(arns), arns),
        ]:
            [policy] = Stack(ProjectArns=parameter).properties("Role")["Policies"]
            [statement] = [
                statement
                for statement in policy["PolicyDocument"]["Statement"]
                if any(action.startswith("iotsitewise:") for action in listed(statement["Action"]))
            ]
            self.assertEqual(statement["Resource"], resource)

    def test_projects_without_the_tag_are_denied(self):
        [_, policy] = Stack(ProjectTagKey="line", ProjectTagValue="a b").properties("Role")[
            "Policies"
        ]
        [statement] = json.loads(policy["PolicyDocument"])["Statement"]
        self.assertEqual(statement["Effect"], "Deny")
        self.assertEqual(
            statement["Condition"], {"StringNotEquals": {"aws:ResourceTag/line": "a b"}}
        )
        [allow] = self.statements(self.stack, "DisassociateAssets")
        self.assertEqual(statement["Action"], allow["Action"])

    def test_portals_are_listed_only_if_they_are_named(self):
        self.assertEqual(self.statements(self.stack, "ListProjectsOfPortals"), [])
        arns = [f"arn:aws:iotsitewise:eu-west-1:{ACCOUNT}:portal/{name}" for name in "ab"]
        [statement] = self.statements(Stack(PortalArns=",".join(arns)), "ListProjectsOfPortals")
        self.assertEqual(
            statement["Action"], ["iotsitewise:ListProjects", "iotsitewise:DescribePortal"]
        )
        self.assertEqual(statement["Resource"], arns)

    def statements(self, stack, sid):
        document = stack.properties("Role")["Policies"][0]["PolicyDocument"]
        return [each for each in document["Statement"] if each["Sid"] == sid]

    def test_the_role_has_the_permissions_boundary_that_is_named(self):
        self.assertNotIn("PermissionsBoundary", self.stack.properties("Role"))
        arn = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
        stack = Stack(PermissionsBoundaryArn=arn)
        self.assertEqual(stack.properties("Role")["PermissionsBoundary"], arn)

    def test_queues_are_encrypted_and_deny_requests_without_tls(self):
        queues = self.stack.of_type("AWS::SQS::Queue")
        self.assertEqual(set(queues), {"WorkQueue", "DeadLetterQueue"})
        for name, queue in queues.items():
            with self.subTest(name):
                self.assertIs(queue["SqsManagedSseEnabled"], True)
                # By default, no service may send.
                [deny] = self.queue_statements(self.stack, name)
                self.assertEqual(
                    deny,
                    {
                        "Sid": "TlsOnly",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "sqs:*",
                        "Resource": self.stack.fn_getatt(f"{name}.Arn"),
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                )

    def test_queues_take_from_the_rule_and_from_the_senders_that_are_named(self):
        senders = [
            f"arn:aws:sns:eu-west-1:{ACCOUNT}:topic",
            f"arn:aws:events:eu-west-1:{ACCOUNT}:rule/r",
        ]
        stack = Stack(EventSource="plant", SenderArns=",".join(senders))
        rule = stack.fn_getatt("DecommissionedRule.Arn")
        from_rule = ("events.amazonaws.com", rule)
        from_senders = (["sns.amazonaws.com", "events.amazonaws.com"], senders)
        for name, expected in [
            ("WorkQueue", [from_rule, from_senders]),
            ("DeadLetterQueue", [from_rule]),
        ]:
            with self.subTest(name):
                _, *allowed = self.queue_statements(stack, name)
                for statement in allowed:
                    self.assertTrue(statement.pop("Sid"))
                self.assertEqual(
                    allowed,
                    [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": services},
                            "Action": "sqs:SendMessage",
                            "Resource": stack.fn_getatt(f"{name}.Arn"),
                            "Condition": {"ArnEquals": {"aws:SourceArn": arns}},
                        }
                        for services, arns in expected
                    ],
                )

    def queue_statements(self, stack, queue):
        [policy] = [
            policy
            for policy in stack.of_type("AWS::SQS::QueuePolicy").values()
            if policy["Queues"] == [stack.fn_ref(queue)]
        ]
        return policy["PolicyDocument"]["Statement"]

    def test_there_is_no_rule_unless_a_source_is_given(self):
        self.assertEqual(self.stack.of_type("AWS::Events::Rule"), {})
        self.assertNotIn("RuleArn", self.stack.outputs)
        self.assertIn("RuleArn", Stack(EventSource="plant").outputs)

    def test_the_rule_sends_to_the_work_queue_or_else_to_the_dead_letters(self):
        [rule] = Stack(EventSource="plant").of_type("AWS::Events::Rule").values()
        [target] = rule["Targets"]
        self.assertEqual(target["Arn"], self.stack.fn_getatt("WorkQueue.Arn"))
        self.assertEqual(
            target["DeadLetterConfig"], {"Arn": self.stack.fn_getatt("DeadLetterQueue.Arn")}
        )

    def test_every_partition_has_its_own_arns(self):
        fixed = [text for text in strings(TEMPLATE["Resources"]) if re.search(r"arn:aws\b", text)]
        self.assertEqual(fixed, [])
        for partition, region in [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")]:
            stack = Stack(region=region, partition=partition)
            for text in strings([stack.resources, stack.outputs]):
                self.assertNotRegex(text, r"arn:aws:|eu-west-1")


class Observability(unittest.TestCase):
    # The alarms that end when nothing happens any more, fixed or not.
    ONCE = {
        "ThrottledCallsAlarm",
        "ThrottlesAlarm",
        "DurationAlarm",
        "RejectedAssetsAlarm",
        "NotStoredAlarm",
        "UndeliveredEventsAlarm",
        "LostEventsAlarm",
        "ErrorsAlarm",
        "LostInvocationsAlarm",
    }

    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(EventSource="plant")
        cls.other_bus = Stack(EventSource="plant", EventBusName="plant")
        cls.alarms = cls.stack.of_type("AWS::CloudWatch::Alarm")

    def test_each_alarm_says_what_to_do(self):
        topic = f"arn:aws:sns:eu-west-1:{ACCOUNT}:topic"
        told = Stack(EventSource="plant", AlarmTopicArn=topic).of_type("AWS::CloudWatch::Alarm")
        self.assertEqual(told.keys(), self.alarms.keys())
        for name, alarm in self.alarms.items():
            with self.subTest(name):
                self.assertRegex(alarm["AlarmDescription"], r"^[A-Z].{60,}[.)]$")
                self.assertLessEqual(len(alarm["AlarmDescription"]), 1024)
                self.assertEqual(alarm["TreatMissingData"], "notBreaching")
                self.assertNotIn("AlarmActions", alarm)
                self.assertEqual(told[name]["AlarmActions"], [topic])
                self.assertEqual(
                    told[name].get("OKActions"), [topic] if name not in self.ONCE else None
                )

    def test_no_alarm_looks_back_further_than_cloudwatch_allows(self):
        day = 86_400
        for name, alarm in self.alarms.items():
            with self.subTest(name):
                period = period_of(alarm)
                most = 7 * day if period >= 3600 else day
                self.assertLessEqual(period * alarm["EvaluationPeriods"], most)
        expire = self.alarms["DeadLettersExpireAlarm"]
        self.assertEqual(period_of(expire) * expire["EvaluationPeriods"], 7 * day)

    def test_a_mapping_that_does_not_invoke_is_noticed_in_a_quarter_of_an_hour(self):
        alarm = self.alarms["MappingAlarm"]
        self.assertEqual(period_of(alarm) * alarm["EvaluationPeriods"], 15 * 60)
        self.assertEqual(
            {metric.name for metric in metrics_of_alarm(alarm)},
            {"ApproximateNumberOfMessagesVisible", "Invocations"},
        )
        for waiting, invocations, is_breaching in [
            (3, None, True),
            (3, 0, True),
            (3, 1, False),
            (0, None, False),
        ]:
            value = value_of(alarm, waiting=waiting, invocations=invocations)
            self.assertEqual(value > alarm["Threshold"], is_breaching, (waiting, invocations))

    def test_unfinished_requests_are_watched_like_unfinished_assets(self):
        alarm = self.alarms["UnfinishedAlarm"]
        self.assertEqual(
            {metric.name for metric in metrics_of_alarm(alarm)},
            {"AssetsUnfinished", "RequestsUnfinished"},
        )
        for assets, requests in [(0, 1), (1, 0), (0, 0)]:
            value = value_of(alarm, assets=assets, requests=requests)
            self.assertEqual(value > alarm["Threshold"], bool(assets or requests))

    def test_the_rules_alarms_come_and_go_with_the_rule(self):
        without = Stack().of_type("AWS::CloudWatch::Alarm")
        self.assertEqual(
            self.alarms.keys() - without.keys(), {"UndeliveredEventsAlarm", "LostEventsAlarm"}
        )
        [shown] = [
            widget["properties"]["alarms"]
            for widget in widgets_of(Stack())
            if widget["type"] == "alarm"
        ]
        self.assertEqual(len(shown), len(without))
        used = {metric.namespace for metric in metrics_of(Stack())}
        self.assertNotIn("AWS/Events", used)

    def test_the_documentation_lists_each_alarm(self):
        text = (ROOT / "docs" / "operations.md").read_text()
        self.assertEqual(set(re.findall(r"^\| `(\w+Alarm)` \|", text, re.M)), set(self.alarms))

    def test_the_documented_cost_counts_the_alarms_and_their_metrics(self):
        text = (ROOT / "docs" / "configuration.md").read_text()
        (alarms, metrics), (with_rule, metrics_with_rule) = (
            (len(each), sum(len(list(metrics_of_alarm(alarm))) for alarm in each.values()))
            for each in (Stack().of_type("AWS::CloudWatch::Alarm"), self.alarms)
        )
        self.assertIn(
            f"{metrics} metrics in {alarms} alarms, 0.10 each; with a rule {metrics_with_rule} in "
            f"{with_rule} | {metrics / 10:.2f} ({metrics_with_rule / 10:.2f}) |",
            text,
        )

    def test_alarms_fit_the_times_that_they_speak_of(self):
        timeout = self.stack.properties("Function")["Timeout"]
        duration = self.alarms["DurationAlarm"]
        self.assertEqual(duration["Threshold"], timeout * 1000 * 9 // 10)
        self.assertIn(f"timeout of {timeout} s", duration["AlarmDescription"])
        # A message that keeps failing is in every period.
        visible = self.stack.properties("WorkQueue")["VisibilityTimeout"]
        for name in ("UnfinishedAlarm", "OldestMessageAlarm"):
            self.assertGreater(period_of(self.alarms[name]), visible)

    def test_metrics_of_aws_have_the_dimensions_that_aws_has(self):
        for stack in (self.stack, self.other_bus):
            for metric in metrics_of(stack):
                if not metric.namespace.startswith("AWS/"):
                    continue
                with self.subTest(metric):
                    names, dimensions = AWS_METRICS[metric.namespace]
                    self.assertIn(metric.name, names)
                    self.assertIn({name for name, _ in metric.dimensions}, dimensions)

    def test_a_rules_metrics_are_those_of_its_bus(self):
        rule = ("RuleName", "DecommissionedRule")
        for stack, dimensions in [
            (self.stack, {rule}),
            (self.other_bus, {rule, ("EventBusName", "plant")}),
        ]:
            events = [metric for metric in metrics_of(stack) if metric.namespace == "AWS/Events"]
            self.assertEqual(len(events), 2)
            self.assertEqual({metric.dimensions for metric in events}, {frozenset(dimensions)})

    def test_the_dashboard_is_one_of_this_region(self):
        for widget in widgets_of(Stack(region="cn-north-1", partition="aws-cn")):
            if widget["type"] in ("metric", "log"):
                with self.subTest(widget["properties"]["title"]):
                    self.assertEqual(widget["properties"]["region"], "cn-north-1")

    def test_the_dashboards_rows_are_full(self):
        widths = [widget["width"] for widget in widgets_of(self.stack)]
        ends = set(itertools.accumulate(widths))
        self.assertLessEqual(set(range(24, sum(widths) + 1, 24)), ends)

    def test_the_dashboard_shows_every_alarm_and_their_thresholds(self):
        widgets = widgets_of(self.stack)
        [shown] = [
            widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"
        ]
        self.assertEqual(
            sorted(shown), sorted(self.stack.fn_getatt(f"{name}.Arn") for name in self.alarms)
        )
        lines = {
            widget["properties"]["title"]: {
                line["label"]: line["value"]
                for line in widget["properties"]["annotations"]["horizontal"]
            }
            for widget in widgets
            if "annotations" in widget["properties"]
        }
        self.assertEqual(
            lines,
            {
                "Age of the oldest unfinished message": {
                    "alarm": int(self.alarms["OldestMessageAlarm"]["Threshold"])
                },
                "Throttled SiteWise requests": {
                    "alarm": self.alarms["ThrottledCallsAlarm"]["Threshold"]
                },
                "Duration of an invocation": {
                    "alarm": self.alarms["DurationAlarm"]["Threshold"],
                    "timeout": self.stack.properties("Function")["Timeout"] * 1000,
                },
                "Concurrent invocations": {
                    "FunctionConcurrency": PARAMETERS["FunctionConcurrency"]["Default"]
                },
            },
        )

    def test_alarm_and_dashboard_have_one_meaning_of_throttled(self):
        [alarm] = [
            query["Expression"]
            for query in self.alarms["ThrottledCallsAlarm"]["Metrics"]
            if "Expression" in query
        ]
        [shown] = [
            part["expression"]
            for widget in widgets_of(self.stack)
            for row in widget["properties"].get("metrics", [])
            for part in row
            if isinstance(part, dict) and "expression" in part
        ]
        self.assertEqual(alarm, shown)


class OwnLog(emulator.EmulatedFunction):
    def setUp(self):
        self.stack = Stack()
        self.start_simulator()
        variables = self.stack.properties("Function")["Environment"]["Variables"]
        self.start_function(AWS_ENDPOINT_URL=self.simulator, **variables)

    def test_each_metric_is_used_and_documented_and_each_used_metric_emitted(self):
        self.seed(sample("sqs"))
        self.assertEqual(self.invoke(sample("sqs")), {"batchItemFailures": []})
        # Messages that stay have an age.
        self.fault("disassociate:status=500")
        self.assertNotEqual(self.invoke(sample("sqs")), {"batchItemFailures": []})
        self.assertEqual({line["service"] for line in self.log()}, {STACK})
        emitted = metrics_of_log(self.log())
        used = {
            metric for metric in metrics_of(self.stack) if not metric.namespace.startswith("AWS/")
        }
        self.assertEqual(used - emitted, set(), "not emitted")
        self.assertEqual(emitted - used, set(), "used by no alarm or widget")
        text = (ROOT / "docs" / "operations.md").read_text()
        [table] = re.findall(r"^\| metric \| unit .*\n\|.*\n((?:\|.*\n)+)", text, re.M)
        cells = [row.split(" | ")[0] for row in table.splitlines()]
        documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
        self.assertEqual(sorted(documented), sorted(metric.name for metric in emitted))

    def test_log_queries_fit_the_log_lines(self):
        # Its projects do not exist.
        self.invoke(sample("sqs"))
        lines = {line["message"]: line for line in self.log()}
        queries = [
            widget["properties"]["query"]
            for widget in widgets_of(self.stack)
            if widget["type"] == "log"
        ]
        self.assertTrue(queries)
        for query in queries:
            self.assertTrue(query.startswith("SOURCE 'LogGroup' | "), query)
            for message in re.findall(r"message !?= '([^']+)'", query):
                self.assertIn(message, lines)
        for field in ["code", "count", "retryable", "first_message_id", "function_request_id"]:
            self.assertIn(field, lines["assets or requests failed"])
            self.assertTrue(any(re.search(rf"\b{field}\b", query) for query in queries), field)


class Outputs(unittest.TestCase):
    def test_the_dashboard_is_in_the_partitions_console(self):
        for partition, region, console in [
            ("aws", "eu-west-1", "console.aws.amazon.com"),
            ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
            ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
        ]:
            self.assertEqual(
                Stack(region=region, partition=partition).outputs["DashboardUrl"]["Value"],
                f"https://{console}/cloudwatch/home?region={region}"
                f"#dashboards/dashboard/{STACK}-{region}",
            )

    def test_the_first_request_has_the_fields_of_a_request(self):
        command = Stack().outputs["FirstRequestCommand"]["Value"]
        [body] = re.findall(r"--message-body '(.+)'$", command)
        request = json.loads(sample("direct"))
        self.assertEqual(set(json.loads(body)), set(request))

    def test_each_is_described(self):
        for name, output in TEMPLATE["Outputs"].items():
            self.assertTrue(output.get("Description"), name)


class Publication(unittest.TestCase):
    """The limits are of "CreateApplication", AWS Serverless Application
    Repository Developer Guide."""

    def test_the_repositorys_metadata_is_the_crates(self):
        metadata = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]
        cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
        self.assertEqual(metadata["SemanticVersion"], cargo["version"])
        self.assertEqual(metadata["SpdxLicenseId"], cargo["license"])
        for key in ("LicenseUrl", "ReadmeUrl"):
            self.assertTrue((ROOT / metadata[key]).is_file())
        self.assertRegex(metadata["Name"], r"^[a-zA-Z0-9-]{1,140}$")
        self.assertRegex(metadata["Author"], r"^[a-z0-9](([a-z0-9]|-(?!-))*[a-z0-9])?$")
        self.assertLessEqual(len(metadata["Description"]), 256)
        self.assertLessEqual(len(metadata["Labels"]), 10)
        for label in metadata["Labels"]:
            self.assertRegex(label, r"^[a-zA-Z0-9+_:/@-]{1,127}$")


if __name__ == "__main__":
    emulator.main()
