"""Stories: text files that drive the simulated world (hamgr/sim) line by line. One verb a line, '#' starts a comment.

The words are listed in VERBS; `then` lines are claims. A member's name comes first or last, durations end in 's'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hamgr.core import actions, facts
from hamgr.core.cluster import Member, Request, Status, Tags
from hamgr.core.routes import Routes
from hamgr.core.server import DataDir, Phase
from hamgr.sim.agent import Upset
from hamgr.sim.ground import Violation
from hamgr.sim.postgres import Disk
from hamgr.sim.world import World

PATIENCE_S = 10.0

TAG = {"nofailover": Tags(nofailover=True)}


class Story:
    """One run of one story."""

    def __init__(self) -> None:
        self.world = World()
        self.mark = self.world.now

    def tell(self, text: str) -> None:
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            try:
                self._do(line)
            except (AssertionError, Violation) as wrong:
                raise AssertionError(f"line {number}: {line}\n{wrong}\n{self.diary()}") from wrong

    def diary(self) -> str:
        """What every member said and did since the last mark, in order: for the reader of a failure."""
        lines = []
        for agent in self.world.agents.values():
            lines += [(at, f"{agent.name} says {text}") for at, text in agent.said if at >= self.mark]
            lines += [(at, f"{agent.name} does {action!r:.150}") for at, action in agent.started if at >= self.mark]
        shown = [f"  {at - self.mark:8.3f}  {text}" for at, text in sorted(lines, key=lambda each: each[0])]
        return "\n".join(shown[-120:])

    def _do(self, line: str) -> None:
        for pattern, verb in VERBS:
            match = re.fullmatch(pattern, line)
            if match:
                verb(self, *match.groups())
                return
        raise SyntaxError(f"no verb for: {line}")

    def agent(self, name: str):
        return self.world.agents[name]

    def did(self, name: str) -> list[str]:
        return [type(action).__name__ for at, action in self.agent(name).started if at >= self.mark]


def fresh(story: Story, names: str) -> None:
    for name in names.split():
        story.world.add(name)


def cluster(story: Story, names: str) -> None:
    """A cluster that the first of the members made and leads, with everybody streaming."""
    first, *others = names.split()
    world = story.world
    world.add(first)
    assert world.run_until(lambda: world.agents[first].server.is_writable, PATIENCE_S)
    world.run(1.0)
    for name in others:
        world.add(name)
    assert world.run_until(lambda: all(story.agent(name).server.streaming for name in others), PATIENCE_S)
    world.write()
    world.run(2.0)
    mark(story)


def mark(story: Story) -> None:
    story.world.settle()
    story.mark = story.world.now


def tagged(story: Story, name: str, tag: str, value: str | None) -> None:
    tags = Tags(failover_priority=int(value)) if tag == "failover_priority" else TAG[tag]
    agent = story.agent(name)
    agent.state = agent.state._replace(me=replace(agent.state.me, tags=tags))


def request(story: Story, leader: str, candidate: str | None) -> None:
    mark(story)
    story.world.request(Request(leader=leader, candidate=candidate or ""))


def failover(story: Story, candidate: str, force: str | None) -> None:
    mark(story)
    story.world.request(Request(candidate=candidate, allow_data_loss=bool(force)))


def upset(story: Story, name: str, how: str, kind: str, times: str | None, code: str | None) -> None:
    assert hasattr(actions, kind), f"no action {kind}"
    words = {"loses the reply of": "lost reply", "fails at": "fail", "hangs in": "hold"}
    story.world.upsets[name, kind] = Upset(words[how], code or "", int(times or 1_000_000))


def calm(story: Story, name: str, kind: str) -> None:
    story.world.upsets.pop((name, kind))
    story.world.release_held(name)


def crash(story: Story, name: str) -> None:
    mark(story)
    story.world.crash_server(name)


def host_lost(story: Story, name: str) -> None:
    mark(story)
    story.world.lose_host(name)


def cut(story: Story, name: str) -> None:
    mark(story)
    story.world.cut_off(name)


def isolated(story: Story, name: str) -> None:
    mark(story)
    story.world.isolate(name)


def healed(story: Story, name: str) -> None:
    story.world.mend(name)


def store(story: Story, does: str) -> None:
    mark(story)
    if does == "is gone":
        story.world.stop_etcd()
    elif does == "is gone without a word":
        story.world.stop_etcd(refuses=False)
    else:
        story.world.start_etcd()


def hung(story: Story, name: str) -> None:
    mark(story)
    story.agent(name).server.freeze("fault")


def disk(story: Story, name: str, state: str) -> None:
    mark(story)
    story.agent(name).server.disk = Disk(state)


def everybody_gone(story: Story, name: str) -> None:
    """Agent and guard at once, and nobody starts them again."""
    mark(story)
    story.world.hosts[name].kill_control()


def synchronous(story: Story, mode: str) -> None:
    story.world.change_policy(synchronous_mode=mode)
    story.world.run(5.0)
    mark(story)


def signal(story: Story, name: str, what: str) -> None:
    mark(story)
    at = story.agent(name).clock_now()
    facts_of = {
        "SIGTERM": facts.StopOrdered(at),
        "SIGUSR2": facts.ReplaceOrdered(at),
        "SIGHUP": facts.SettingsReread(at),
    }
    story.agent(name).post(facts_of[what])


def ordered(story: Story, kind: str, name: str) -> None:
    mark(story)
    story.agent(name).post(facts.Ordered(len(story.agent(name).started) + 1, kind, story.agent(name).clock_now()))


def receives(story: Story, name: str, no_more: str | None) -> None:
    server = story.agent(name).server
    if no_more is None:
        story.world.shared.replication.receives_again(server)
    else:
        server.receives = False


def write(story: Story, size: str | None) -> None:
    story.world.write(int(size or 100))


def diverges(story: Story, name: str) -> None:
    """WAL on that disk that nobody else has, of writes that nobody was told of."""
    story.agent(name).server.append(-1, 100)


def restores(story: Story, name: str, source: str) -> None:
    """As from an archive: no stream is needed for it."""
    held = story.agent(source).server
    story.agent(name).server.take_wal(held.timeline, held.ends, held.lsn, held.head)


def data_dir(story: Story, name: str, what: str) -> None:
    server = story.agent(name).server
    if what == "foreign":
        server.initialise("system-elsewhere")
    else:
        server.data_dir, server.problem = DataDir[what.upper()], "as the story wants it"


def paused(story: Story, word: str) -> None:
    story.world.set_policy(replace(story.world.policy, pause=word == "paused"))
    story.world.run(0.1)
    mark(story)


def ttl_is(story: Story, seconds: str) -> None:
    mark(story)
    story.world.change_policy(ttl_s=float(seconds))


def status(story: Story, bytes_ahead: str) -> None:
    """What the lost leader last wrote is far ahead of what anybody has."""
    old: Status = story.world.etcd.get("status")
    story.world.etcd.write({"status": (replace(old, optime=type(old.optime)(old.optime + int(bytes_ahead))), 0)})


def agent_dies(story: Story, name: str) -> None:
    mark(story)
    story.world.stop_agent(name)


def ghost(story: Story, name: str) -> None:
    """A member whose key is there and which never votes: frozen, its lease not run out yet."""
    lease_id = story.world.etcd.grant(1e9, story.world.now)
    member = Member(name, f"postgres://{name}.host:5432/postgres", f"http://{name}:8008", "running")
    story.world.etcd.write({f"members/{name}": (member, lease_id)})


def starts_as_standby(story: Story, name: str) -> None:
    """By somebody else's hand, or by that of an earlier agent."""
    story.agent(name).server.start(as_standby=True)


def pools_stand(story: Story) -> None:
    """A pool and a load balancer before all servers, in every member's file; target files on every host."""
    routes = Routes(pools=True, targets=True, balancers=True)
    story.world.shared.routes = routes
    for agent in story.world.agents.values():
        agent.post(facts.SettingsReread(agent.clock_now(), routes))
    assert story.world.run_until(lambda: story.world.shared.front.routed_to == story.world.leader(), PATIENCE_S)
    mark(story)


def withdrawn(story: Story) -> None:
    story.world.request(None)


def transaction(story: Story, ends: str) -> None:
    story.world.shared.front.is_busy = ends == "does not end"


def pool_is(story: Story, what: str) -> None:
    story.world.shared.front.answers = what == "answers again"


# -- claims ----------------------------------------------------------------------------------------------------


def leads(story: Story, name: str, term: str | None, within: str | None) -> None:
    world = story.world

    def holds() -> bool:
        return (
            world.etcd.get("leader") == name
            and story.agent(name).server.is_writable
            and story.agent(name).state.verified_term == world.etcd.get("term")
        )

    assert world.run_until(holds, float(within or PATIENCE_S)), f"{world.etcd.get('leader')} leads"
    if term:
        assert world.etcd.get("term") == int(term), f"the term is {world.etcd.get('term')}"


def is_on_lease(story: Story, name: str, key: str, seconds: str, within: str) -> None:
    """That key is the member's, on a lease of that length."""
    etcd = story.world.etcd

    def holds() -> bool:
        entry = etcd.keys.get(key)
        lease = etcd.leases.get(entry.lease_id) if entry is not None else None
        return lease is not None and (lease.holder, lease.ttl_s) == (name, float(seconds))

    assert story.world.run_until(holds, float(within)), f"{etcd.keys.get(key)}, {etcd.leases}"


def leads_on_lease(story: Story, name: str, seconds: str, within: str) -> None:
    is_on_lease(story, name, "leader", seconds, within)


def announced_on_lease(story: Story, name: str, seconds: str, within: str) -> None:
    is_on_lease(story, name, f"members/{name}", seconds, within)


def nobody_leads(story: Story, seconds: str) -> None:
    story.world.run(float(seconds))
    assert "leader" not in story.world.etcd.keys, f"{story.world.etcd.get('leader')} leads"
    assert not any(agent.server.is_writable for agent in story.world.agents.values())


def follows(story: Story, name: str, leader: str) -> None:
    def holds() -> bool:
        server = story.agent(name).server
        return server.streaming and server.upstream.startswith(f"{leader}.")

    assert story.world.run_until(holds, 3 * PATIENCE_S), f"{story.agent(name).server}"


def does(story: Story, name: str, kinds: str, within: str | None) -> None:
    """These actions in this order, others between them."""
    wanted = [kind.strip() for kind in kinds.split(",")]
    assert all(hasattr(actions, kind) for kind in wanted), wanted

    def holds() -> bool:
        done = iter(story.did(name))
        return all(kind in done for kind in wanted)

    assert story.world.run_until(holds, float(within or PATIENCE_S)), f"it did {story.did(name)}"


def did_times(story: Story, name: str, kind: str, times: str) -> None:
    assert hasattr(actions, kind), f"no action {kind}"
    assert story.did(name).count(kind) == int(times), story.did(name)


def never(story: Story, name: str, kinds: str) -> None:
    wrong = set(story.did(name)) & {kind.strip() for kind in kinds.split(",")}
    assert not wrong, f"it did {wrong}"


def says(story: Story, name: str, code: str, within: str | None) -> None:
    def holds() -> bool:
        return any(
            text.endswith(f": {code}") for at, text in story.agent(name).said if at >= story.mark
        ) or story.agent(name).said[-1][1].endswith(f": {code}")

    assert story.world.run_until(holds, float(within or PATIENCE_S)), story.agent(name).said[-1][1]


def exits(story: Story, name: str, code: str) -> None:
    assert story.world.run_until(lambda: story.agent(name).exit_code is not None, PATIENCE_S)
    assert story.agent(name).exit_code == int(code)


def server_is(story: Story, name: str, what: str) -> None:
    server = story.agent(name).server
    claims: dict[str, Callable[[], bool]] = {
        "down": lambda: not server.is_alive,
        "running": lambda: server.phase is Phase.RUNNING,
        "primary": lambda: server.is_writable,
    }
    assert story.world.run_until(claims[what], PATIENCE_S), server


def nothing_lost(story: Story) -> None:
    assert not story.world.lost(), f"acknowledged and lost: {story.world.lost()}"


def lost(story: Story) -> None:
    assert story.world.lost()


def guard_kills(story: Story, names: str) -> None:
    wanted = [] if names == "nobody" else names.split()
    assert story.world.guard_kills == wanted, story.world.guard_kills


def cause_is(story: Story, term: str, cause: str, former: str | None) -> None:
    assert story.world.run_until(lambda: int(term) in story.world.records, PATIENCE_S), "no record"
    record = story.world.records[int(term)]
    assert record.cause == cause, record
    assert record.former == (former or ""), record


def no_request(story: Story) -> None:
    assert story.world.run_until(lambda: "failover" not in story.world.etcd.keys, PATIENCE_S)


def refused(story: Story, words: str) -> None:
    assert story.world.run_until(lambda: any(words in said for said in story.world.refusals), PATIENCE_S)


def term_is(story: Story, term: str) -> None:
    assert story.world.etcd.get("term") == int(term), f"the term is {story.world.etcd.get('term')}"


def aside(story: Story, name: str) -> None:
    assert name in story.world.kept_aside


def pool_held(story: Story, what: str, within: str | None) -> None:
    front = story.world.shared.front
    assert story.world.run_until(lambda: front.is_held == (what == "held"), float(within or PATIENCE_S)), front


def pool_never_held(story: Story) -> None:
    assert not story.world.shared.front.is_held


def routed_to(story: Story, name: str) -> None:
    """The load balancer was told, and every target file names that member."""
    front = story.world.shared.front
    alive = [each for each, host in story.world.hosts.items() if host.agent.is_running]

    def holds() -> bool:
        return front.routed_to == name and all(front.targets.get(each) == name for each in alive)

    assert story.world.run_until(holds, PATIENCE_S), front


def record_notes(story: Story, term: str, words: str) -> None:
    def holds() -> bool:
        record = story.world.records.get(int(term))
        return record is not None and any(words in note for note in record.notes)

    assert story.world.run_until(holds, PATIENCE_S), story.world.records.get(int(term))


def record_notes_nothing(story: Story, term: str) -> None:
    assert story.world.run_until(lambda: int(term) in story.world.records, PATIENCE_S), "no record"
    assert story.world.records[int(term)].notes == ()


N = r"([a-z]+)"
S = r"([0-9.]+) ?s"

VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"fresh members ([a-z ]+)", fresh),
    (r"cluster of ([a-z ]+)", cluster),
    (rf"{N} is tagged (\w+)(?: (\d+))?", tagged),
    (rf"switchover from {N}(?: to {N})?", request),
    (rf"failover to {N}( allowing data loss)?", failover),
    (rf"{N} (loses the reply of|fails at|hangs in) (\w+)(?: (\d+) times?)?(?: with (\w+))?", upset),
    (rf"{N} recovers from (\w+)", calm),
    (rf"the server of {N} crashes", crash),
    (rf"the server of {N} hangs", hung),
    (rf"the host of {N} is lost", host_lost),
    (rf"the disk of {N} is (full|hung|well)", disk),
    (rf"agent and guard of {N} are gone", everybody_gone),
    (r"synchronous mode is (on|quorum|off)", synchronous),
    (rf"the agent of {N} dies", agent_dies),
    (rf"the agent of {N} starts", lambda story, name: story.world.start_agent(name)),
    (rf"{N} is cut off from etcd", cut),
    (rf"{N} is isolated", isolated),
    (rf"{N} is reachable again", healed),
    (r"etcd (is gone|is gone without a word|answers again)", store),
    (rf"{N} gets (\w+)", signal),
    (rf"order to (\w+) {N}", ordered),
    (rf"{N} receives( nothing)?(?: again)?", receives),
    (r"write(?: (\d+) bytes)?", write),
    (rf"{N} has WAL of its own", diverges),
    (rf"{N} restores the WAL of {N}", restores),
    (rf"the data of {N} is (\w+)", data_dir),
    (r"the cluster is (paused|resumed)", paused),
    (rf"the ttl is changed to {S}", ttl_is),
    (r"the status is (\d+) bytes ahead of everybody", status),
    (rf"a frozen member {N}", ghost),
    (rf"the server of {N} is started as a standby", starts_as_standby),
    (r"a pool and a load balancer stand before the servers", pools_stand),
    (r"the request is withdrawn", withdrawn),
    (r"a transaction (does not end|ends)", transaction),
    (r"the pool (is gone|answers again)", pool_is),
    (rf"then the pool is (held|released)(?: within {S})?", pool_held),
    (r"then the pool was not held", pool_never_held),
    (rf"then clients are sent to {N}", routed_to),
    (r"then the record of term (\d+) notes nothing", record_notes_nothing),
    (r"then the record of term (\d+) notes that (.+)", record_notes),
    (rf"after {S}", lambda story, seconds: story.world.run(float(seconds))),
    (r"mark", mark),
    (rf"then {N} leads(?: in term (\d+))?(?: within {S})?", leads),
    (rf"then {N} leads on a lease of {S} within {S}", leads_on_lease),
    (rf"then {N} has announced itself on a lease of {S} within {S}", announced_on_lease),
    (rf"then nobody leads for {S}", nobody_leads),
    (rf"then {N} follows {N}", follows),
    (rf"then {N} does ([A-Za-z, ]+?)(?: within {S})?", does),
    (rf"then {N} did (\w+) (\d+) times?", did_times),
    (rf"then {N} never did ([A-Za-z, ]+)", never),
    (rf"then {N} says (\w+)(?: within {S})?", says),
    (rf"then {N} exits with (\d+)", exits),
    (rf"then the server of {N} is (\w+)", server_is),
    (r"then nothing is lost", nothing_lost),
    (r"then writes are lost", lost),
    (r"then the guard killed ([a-z ]+)", guard_kills),
    (rf"then the record of term (\d+) says (\w+)(?: after {N})?", cause_is),
    (r"then no request stands", no_request),
    (r"then the refusal says (.+)", refused),
    (r"then the term is (\d+)", term_is),
    (rf"then the old data of {N} is kept aside", aside),
)


def tell(path: Path) -> None:
    """Run the story in that file; raises AssertionError with the line and the members' diary."""
    Story().tell(path.read_text())
