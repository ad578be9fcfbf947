"""``aipod log``: the records of a training, those that are there and those that come."""

from __future__ import annotations

import click

from aipod.cli.client import LATEST, address_option, connected, job_of, version_option
from aipod.cli.json_text import to_json
from aipod.cli.records import record_line, state_line
from aipod.rpc.client import TrainingJob

__all__ = ["log"]


@click.command()
@address_option
@version_option
@click.option("--job", "job_id", default=LATEST, metavar="ID", help="A job by its id; else the version's latest.")
@click.option("-f", "--follow", is_flag=True, help="Go on with the records that come, until the job has ended.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Leave out those up to this one.")
@click.option("--output", is_flag=True, help="What the model printed, in place of its records.")
@click.option("--json", "as_json", is_flag=True, help="Each record as JSON, in a line of its own.")
def log(address: str | None, version: str, job_id: str, follow: bool, after: int, output: bool, as_json: bool) -> None:
    """Show what a training has written to its log.

    \b
      aipod log -v v1
      aipod log -f -v v1
      aipod log --job 'v1@20260102T030405000000Z-0a1b' --output
      aipod log -v v1 --json | jq -r 'select(.data) | [.seq, .data.accuracy] | @tsv'

    With -f it ends when the job does, and takes up where it was when the server was away. Ctrl-C ends it, never the
    job. How the job stands is said on stderr.
    """
    if output and (follow or after or as_json):
        raise click.UsageError("--output goes with none of -f, --after and --json.")
    with connected(address, version) as client:
        job = job_of(client, job_id)
        if output:
            click.echo(job.output().encode(), nl=False)
        else:
            _show(job, follow, after, as_json)


def _show(job: TrainingJob, follow: bool, after: int, as_json: bool) -> None:
    for record in job.logs(follow, after):
        # As bytes: what a model writes has signs that the locale may lack.
        click.echo((to_json(record) if as_json else record_line(record)).encode())
    click.echo(state_line(job.info()), err=True)
