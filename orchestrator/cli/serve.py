"""pairloop serve: the admin API alone, for all runs of a Redis."""

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=50051, show_default=True, help="0: a free one."
)
@click.option(
    "--console-port", type=click.IntRange(0, 65535), show_default="50052, or a free one",
    help="Of the web console. 0: a free one.",
)  # fmt: skip
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="For Prometheus: how its calls ended."
)
@click.option("--no-console", is_flag=True, help="No web console.")
@click.option(
    "--redis", "url", metavar="URL", envvar="REDIS_URL", required=True, show_envvar=True,
    help="As queues.url; a password is better in the environment.",
)  # fmt: skip
@click.option(
    "--tokens", metavar="FILE", envvar="PAIRLOOP_TOKENS_FILE",
    help="Lines 'identity role token'; role: read, annotate or write.",
)  # fmt: skip
@click.option("--tls-cert", metavar="FILE", help="Its certificate, PEM.")
@click.option("--tls-key", metavar="FILE", help="The key of that, PEM.")
@click.option("--tls-client-ca", metavar="FILE", help="Who signs its callers' certificates, PEM.")
def serve(no_console: bool, metrics_port: int | None, **options: str | int | None) -> None:
    """The admin API alone, for all runs of a Redis.

    It answers for those whose process is gone, too. It keeps nothing by itself: several may stand
    over one Redis.
    """
    from pydantic import ValidationError

    from orchestrator.control.serve import serve as work
    from services.admin.settings import AdminSettings

    url = str(options.pop("url"))
    if options["console_port"] is None and not no_console:
        del options["console_port"]
    try:
        settings = AdminSettings.model_validate(options)
    except ValidationError as error:
        raise click.UsageError(str(error.errors()[0]["msg"])) from None
    work(settings, url, metrics_port)
