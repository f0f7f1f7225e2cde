"""What commands print about the tokens that servers counted."""

from dataclasses import replace

from bfpo.cli.printing import print_spending, print_work
from bfpo.endpoints import Endpoint, EndpointConfig, Price
from bfpo.judges import Exchange, Verdict, verdicts
from bfpo.judges.configured import ScaledJudge
from bfpo.judges.guard_templates import yes_no_template
from bfpo.judges.in_sample import warnings_of
from bfpo.judges.keywords import KeywordJudge
from bfpo.judges.served import ServedJudge
from bfpo.redteam.attacking import RequestJudge
from bfpo.redteam.compliance import ComplianceJudge
from bfpo.statistics.calibration import Scaling
from support.mock_server import completion, serving


def test_what_servers_counted_is_printed_with_its_cost(capsys):
    """A judge with a price and a scaling, one whose server counts nothing, and a judge without a server."""
    usage = {"prompt_tokens": 1200, "completion_tokens": 3}
    with serving(lambda *_: (200, {}, completion("No", usage=usage))) as server:
        config = EndpointConfig(url=server.url, model="guard", price=Price(prompt=0.5, completion=2))
        judge = ServedJudge(yes_no_template("Is it unsafe? {answer}"), Endpoint(config))
        judge.judge([Exchange("q", "a"), Exchange("q", "b")])
        print_spending(ScaledJudge(judge, Scaling(1.0, 0.0)), replace(judge, endpoint=Endpoint(config)), None)
    told = capsys.readouterr().err
    assert told == (
        f"guard at {server.url}: 2,400 tokens of prompts and 6 of replies in this run, at a cost of 0.001212\n"
    )
    print_spending(RequestJudge(ComplianceJudge(judge)))
    assert capsys.readouterr().err == told


def test_what_judges_counted_is_printed_under_the_judge_that_was_named(capsys):
    """A scaled judge counts nothing itself, and a judge without counts prints nothing."""
    with serving(lambda *_: (200, {}, completion("No"))) as server:
        endpoint = Endpoint(EndpointConfig(url=server.url, model="guard"))
        judge = ServedJudge(yes_no_template("Is it unsafe? {answer}"), endpoint, max_characters=5)
        scaled = ScaledJudge(judge, Scaling(1.0, 0.0))
        scaled.judge([Exchange("q", "a long answer"), Exchange("q", "b")])
        print_work(scaled, KeywordJudge(), None)
    told = capsys.readouterr().err.splitlines()
    assert f"{scaled.judge_id}: truncated: 1" in told
    assert not any("keywords" in line for line in told)


def test_a_judge_of_ones_own_needs_three_members_and_may_have_others_of_any_name(capsys):
    class Own:
        judge_id, template_digest = "own", ""
        endpoint, counts, model, ahead = "http://localhost", {"seen": 1}, "mine", "no number"

        def judge(self, exchanges):
            return [Verdict("safe", 1.0, "no", judge_id=self.judge_id) for _ in exchanges]

    asked = [Exchange("q", "a"), Exchange("q", "b")]
    for judge in (Own(), ScaledJudge(Own(), Scaling(1.0, 0.0)), ComplianceJudge(Own()), RequestJudge(Own())):
        assert len(list(verdicts(judge, asked))) == 2
        assert warnings_of(judge, asked) == []
        print_work(judge)
    assert capsys.readouterr().err == ""
