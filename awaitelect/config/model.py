"""The settings, as the YAML file has them.

The docstring under each field is its meaning in the README's table and in the JSON schema, so it is one short sentence.
Durations are seconds. What is said about a value's form is in its Kind; what is said about two values together is in
rules.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from awaitelect.config.attribute_kinds import GROUP, GROUPS, NICE, OOM_SCORE_ADJ, ULIMITS, USER, Limit
from awaitelect.config.kinds import DURATION, FLAG, Kind, choice_kind, number_kind, text_kind, whole_kind
from awaitelect.config.listen import LISTEN, Listen
from awaitelect.config.probe_kind import PROBE
from awaitelect.config.process_kinds import COMMAND, ENV, ENV_FILES, EXIT_CODES, REWRITE, SIGNAL, UMASK, EnvFile
from awaitelect.config.service_kinds import ADDRESS, LABEL_KEY, LABEL_VALUE, PORTS, Port
from awaitelect.config.variables import PREFIX
from awaitelect.protocol import TERMINATION_LOG, Probe
from awaitelect.values import Value

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_LINE = text_kind("a text of one line, not empty", r"\S|\S[^\x00-\x1f\x7f]*\S", 253)
_PATH = text_kind("the path of a file or directory", r"[^\x00-\x1f\x7f]+")
_OBJECT = text_kind(
    "a name as Kubernetes has them: lower-case letters, digits, '-' and '.'", rf"{_LABEL}(\.{_LABEL})*", 253
)
_NAMESPACE = text_kind("a namespace: lower-case letters, digits and '-', 63 at most", _LABEL, 63)
_SERVICE = text_kind(
    "the name of a Service: lower-case letters, digits and '-', 63 at most, a letter first",
    r"[a-z]([a-z0-9-]*[a-z0-9])?",
    63,
)

OnLost = Literal["follow", "exit"]
Backend = Literal["kubernetes", "file"]
Policy = Literal["on-failure", "always", "on-abnormal", "never"]
OnGiveUp = Literal["release", "exit", "hold"]
KillMode = Literal["mixed", "group", "process", "tree"]
InCgroup = Literal["auto", "off"]
Target = Literal["main", "group"]
Readiness = Literal["exec", "notify", "probe"]
ServiceApi = Literal["auto", "endpointslices", "endpoints"]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json", "logfmt"]

Duration = Annotated[float, DURATION]
Flag = Annotated[bool, FLAG]


class Election(Value):
    """Who is elected, and how fast."""

    enabled: Flag = True
    """Whether there is an election at all; without one the command starts at once."""
    name: Annotated[str | None, _LINE] = None
    """The election's name in logs, events and metrics; by default the name of the lock."""
    identity: Annotated[str | None, _LINE] = None
    """Our name in the lease, another in each instance; default: `POD_NAME`, else the host name; for a file + `-RUN`."""
    lease_duration: Duration = 15.0
    """How long the others wait after the last renewal before they take the lease."""
    renew_deadline: Duration = 10.0
    """How long after the last renewal the command is told to stop."""
    retry_period: Duration = 2.0
    """The time from one renewal to the next."""
    kill_margin: Duration = 1.0
    """How long before the end of the lease the last process of the command is killed."""
    on_lost: Annotated[OnLost, choice_kind(*get_args(OnLost))] = "follow"
    """What comes after lost leadership: `follow` waits for the next turn, `exit` ends with status 75."""


class Lock(Value):
    """What the instances compete for."""

    backend: Annotated[Backend, choice_kind(*get_args(Backend))] = "kubernetes"
    """Where the lease is kept: in a Kubernetes cluster, or in a file of this machine."""
    name: Annotated[str | None, _OBJECT] = None
    """The name of the Lease object; needed with backend `kubernetes`."""
    namespace: Annotated[str | None, _NAMESPACE] = None
    """The Lease's namespace; by default `POD_NAMESPACE`, the service account's, or the context's."""
    kubeconfig: Annotated[str | None, _PATH] = None
    """The kubeconfig file; by default the in-cluster configuration, `KUBECONFIG`, or `~/.kube/config`."""
    context: Annotated[str | None, _LINE] = None
    """The context of the kubeconfig; by default its current one."""
    path: Annotated[str | None, _PATH] = None
    """The path of the lease file; needed with backend `file`."""


class Backoff(Value):
    """The pauses between restarts."""

    initial: Duration = 0.5
    """The pause before the first restart."""
    factor: Annotated[float, number_kind(1, 1000)] = 2.0
    """How many times longer each further pause is; after an end without a failure it stays the first one."""
    max: Duration = 30.0
    """The longest pause."""
    jitter: Annotated[float, number_kind(0, 1)] = 0.1
    """The share of a pause that is added at random, at most."""
    reset_after: Duration = 60.0
    """How long the command must run for the count of its failures to start anew."""


class Restart(Value):
    """What happens when the command ends by itself."""

    policy: Annotated[Policy, choice_kind(*get_args(Policy))] = "on-failure"
    """After which ends the command is started again; `on-abnormal` is after signals only."""
    backoff: Backoff = Backoff()
    max_restarts: Annotated[int, whole_kind(0, 1_000_000)] = 5
    """The number of failures in a row that are answered by a restart."""
    on_give_up: Annotated[OnGiveUp, choice_kind(*get_args(OnGiveUp))] = "release"
    """What follows one more: let others lead (`lease_duration`, or 10s), exit, or hold the lease and run nothing."""


class Stop(Value):
    """How the command is stopped."""

    signal: Annotated[int, SIGNAL] = 15
    """The signal that asks the command to stop."""
    command: Annotated[tuple[str, ...] | None, COMMAND] = None
    """A program that asks the command to stop, in place of the signal, which follows if the command outlives it; it finds `MAINPID` in its environment."""  # noqa: E501
    timeout: Duration = 10.0
    """The time from that signal to SIGKILL; cut short where a lost lease leaves less."""
    kill_mode: Annotated[KillMode, choice_kind(*get_args(KillMode))] = "mixed"
    """Who gets the stop signal: `mixed` the main process, `group` its group, `tree` every process; `process` the main process, and the rest is left alone until it has ended. SIGKILL at the end is for all."""  # noqa: E501
    cgroup: Annotated[InCgroup, choice_kind(*get_args(InCgroup))] = "auto"
    """Whether the command runs in a cgroup of its own, so that none of its processes can hide; `auto` is where cgroup v2 is writable."""  # noqa: E501


class Start(Value):
    """When the command counts as ready for its users."""

    ready: Annotated[Readiness, choice_kind(*get_args(Readiness))] = "exec"
    """What makes the command ready: `exec` its start, `notify` its own word (`READY=1`, as for systemd), `probe` an answer."""  # noqa: E501
    timeout: Duration = 90.0
    """How long it may take to be ready; else it counts as failed."""
    probe: Annotated[Probe | None, PROBE] = None
    """How it is asked whether it is ready, with Kubernetes' fields: `http_get`, `tcp_socket` or `exec`."""


class Probes(Value):
    """Questions to the command while it runs."""

    liveness: Annotated[Probe | None, PROBE] = None
    """How it is asked, once it is ready, whether it is alive; if it does not answer well it is stopped and counts as failed."""  # noqa: E501


class Hooks(Value):
    """Programs that are run beside the command, with its environment, under the same lease."""

    pre_start: Annotated[tuple[str, ...] | None, COMMAND] = None
    """Runs before each start of the command, which counts as failed if it fails."""
    post_start: Annotated[tuple[str, ...] | None, COMMAND] = None
    """Runs once the command is ready; if it fails the command is stopped and counts as failed."""
    pre_stop: Annotated[tuple[str, ...] | None, COMMAND] = None
    """Runs before the stop signal; it may take half of the time that the stop has."""
    post_stop: Annotated[tuple[str, ...] | None, COMMAND] = None
    """Runs after each end of the command, before the lease is released; it learns the outcome as systemd's ExecStopPost."""  # noqa: E501
    timeout: Duration = 10.0
    """How long each may take, where the lease leaves as much."""


class Signals(Value):
    """What happens to signals that awaitelect gets."""

    rewrite: Annotated[dict[int, int], REWRITE] = {}
    """Signals that are forwarded as another one; `none` drops them."""
    target: Annotated[Target, choice_kind(*get_args(Target))] = "main"
    """Who gets forwarded signals: the main process of the command, or its whole group."""


class TerminationMessage(Value):
    """What Kubernetes shows about the container's end."""

    path: Annotated[str, _PATH] = TERMINATION_LOG
    """The file that gets the cause of the end and the command's last lines; one at the default path must exist."""
    stderr_lines: Annotated[int, whole_kind(0, 1000)] = 20
    """How many of the last lines that the command wrote to stderr; 0: none, and its stderr does not pass through awaitelect."""  # noqa: E501


class Service(Value):
    """The Service, without a selector, whose traffic goes to the leader."""

    name: Annotated[str | None, _SERVICE] = None
    """The name of the Service; without one nothing is routed."""
    namespace: Annotated[str | None, _NAMESPACE] = None
    """The Service's namespace; by default that of the lock."""
    api: Annotated[ServiceApi, choice_kind(*get_args(ServiceApi))] = "auto"
    """What is written: `endpointslices`, `endpoints`, or, with `auto`, EndpointSlices where that is allowed and else Endpoints."""  # noqa: E501
    ports: Annotated[tuple[Port, ...], PORTS] = ()
    """The ports that the command serves, named as the Service's ports are; without any, only its address is told."""
    pod_ip: Annotated[str | None, ADDRESS] = None
    """The address that traffic goes to, IPv4 or IPv6; by default `POD_IP`."""
    node_name: Annotated[str | None, _OBJECT] = None
    """The node of that address, for routing by topology and to itself; by default `NODE_NAME`."""


class Pod(Value):
    """The pod that this instance runs in."""

    name: Annotated[str | None, _OBJECT] = None
    """The pod's name; by default `POD_NAME`."""
    namespace: Annotated[str | None, _NAMESPACE] = None
    """The pod's namespace; by default `POD_NAMESPACE`, else that of the lock."""
    uid: Annotated[str | None, _LINE] = None
    """The pod's uid, by which `kubectl describe pod` finds its Events; by default `POD_UID`, else the API server is asked."""  # noqa: E501


class PodLabel(Value):
    """A label on this instance's own pod that says whether it leads."""

    key: Annotated[str | None, LABEL_KEY] = None
    """The key of the label, such as `awaitelect.io/role`; without one no pod is labelled."""
    leader: Annotated[str, LABEL_VALUE] = "leader"
    """The label's value while this instance leads, until it begins to step down."""
    follower: Annotated[str, LABEL_VALUE] = "follower"
    """The label's value otherwise."""


class Status(Value):
    """The status pages."""

    listen: Annotated[Listen | None, LISTEN] = None
    """The address of the status pages and metrics such as `:9999`, which is all addresses in a pod and this machine's own elsewhere; empty: none."""  # noqa: E501


class Log(Value):
    """The log lines of awaitelect itself, on stderr."""

    level: Annotated[Level, choice_kind(*get_args(Level))] = "info"
    """The least important lines that are still written."""
    format: Annotated[Format, choice_kind(*get_args(Format))] = "auto"
    """How lines are written; `auto` is text, on a terminal with colours and the local time."""


class Settings(Value):
    """All settings. Each has a default but for the lock and the command."""

    election: Election = Election()
    lock: Lock = Lock()
    command: Annotated[tuple[str, ...], COMMAND] = ()
    """The program and its arguments; what stands on the command line wins."""
    env: Annotated[dict[str, str], ENV] = {}
    """Variables set for the command, over those of `env_file`."""
    env_file: Annotated[tuple[EnvFile, ...], ENV_FILES] = ()
    """Files with variables for the command, in the syntax of systemd's EnvironmentFile; later ones win."""
    inherit_env: Flag = True
    """Whether the command gets awaitelect's own environment, below `env_file` and `env`."""
    working_dir: Annotated[str | None, _PATH] = None
    """The directory that the command is started in, entered with the rights of `user`; by default awaitelect's own."""
    user: Annotated[str | int | None, USER] = None
    """The user that the command runs as, by name or number, with its HOME, USER, LOGNAME and SHELL below `env_file` and `env`; by default awaitelect's own."""  # noqa: E501
    group: Annotated[str | int | None, GROUP] = None
    """The main group that the command runs with, by name or number; by default that of `user`."""
    supplementary_groups: Annotated[tuple[str | int, ...] | None, GROUPS] = None
    """The command's further groups, and no others; by default those that `user` has in the user database."""
    umask: Annotated[int | None, UMASK] = None
    """The command's umask in octal such as "027"; by default awaitelect's own."""
    ulimits: Annotated[dict[str, Limit], ULIMITS] = {}
    """The command's resource limits by docker's names, in the units of setrlimit(2): a number, `unlimited`, or `{soft, hard}`."""  # noqa: E501
    nice: Annotated[int | None, NICE] = None
    """The command's niceness, from -20 (first) to 19 (last); by default awaitelect's own."""
    oom_score_adj: Annotated[int | None, OOM_SCORE_ADJ] = None
    """How readily the kernel kills the command when memory is short, from -1000 (never) to 1000; by default as awaitelect."""  # noqa: E501
    restart: Restart = Restart()
    success_exit_codes: Annotated[tuple[int, ...], EXIT_CODES] = (0,)
    """The exit codes of the command that are no failure."""
    stop: Stop = Stop()
    signals: Signals = Signals()
    start: Start = Start()
    probes: Probes = Probes()
    hooks: Hooks = Hooks()
    termination_message: TerminationMessage = TerminationMessage()
    service: Service = Service()
    pod: Pod = Pod()
    pod_label: PodLabel = PodLabel()
    events: Flag = False
    """Whether Events on the Lease and on the pod tell of leadership that begins and ends, worded as by client-go."""
    status: Status = Status()
    log: Log = Log()


class Leaf(Value):
    """One setting: a place in the tree of sections."""

    path: tuple[str, ...]
    kind: Kind
    default: Any
    section: type

    @property
    def key(self) -> str:
        """As in the YAML file: `election.lease_duration`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """As in the environment: `AWAITELECT_ELECTION_LEASE_DURATION`."""
        return PREFIX + "_".join(self.path).upper()


def _leaves(section: type[Value], path: tuple[str, ...]) -> Iterator[Leaf]:
    hints = get_type_hints(section, include_extras=True)
    for name, default in section.DEFAULTS.items():
        if isinstance(default, Value):
            yield from _leaves(type(default), (*path, name))
        else:
            kind = next(said for said in get_args(hints[name]) if isinstance(said, Kind))
            yield Leaf((*path, name), kind, default, section)


LEAVES: dict[str, Leaf] = {leaf.key: leaf for leaf in _leaves(Settings, ())}
"""Every setting by its key, in the order of the model."""

VARIABLES: dict[str, Leaf] = {leaf.variable: leaf for leaf in LEAVES.values()}
"""Every setting by its variable."""

SECTIONS: dict[str, frozenset[str]] = {
    path: frozenset(key.removeprefix(path + ".").split(".")[0] for key in LEAVES if key.startswith(path + "."))
    for path in {".".join(leaf.path[:depth]) for leaf in LEAVES.values() for depth in range(1, len(leaf.path))}
} | {"": frozenset(leaf.path[0] for leaf in LEAVES.values())}
"""The keys that each section has, by the section's path; the top is the empty one."""


def value_of(settings: Settings, key: str) -> Any:
    """The value of one setting, by its key."""
    value: Any = settings
    for name in LEAVES[key].path:
        value = getattr(value, name)
    return value


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings with these values, by key, and the defaults for the others. The values are what a Kind accepted."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section = tree
        *path, name = LEAVES[key].path
        for step in path:
            section = section.setdefault(step, {})
        section[name] = value
    built: Settings = _built(Settings, tree)
    return built


def _built(section: type[Value], values: dict[str, Any]) -> Any:
    defaults = section.DEFAULTS
    return section(
        **{
            name: _built(type(defaults[name]), value) if isinstance(defaults[name], Value) else value
            for name, value in values.items()
        }
    )
