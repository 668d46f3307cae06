"""The group of all commands: errors become one line and an exit code."""

from __future__ import annotations

import sys
from typing import Any

import click

from veloflow.cli.options import DEBUG
from veloflow.errors import VeloflowError

__all__ = ["Group"]


class Group(click.Group):
    """Turns errors into one line and an exit code; suggests the nearest command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away: nothing more can be said to it
            ctx.exit(1)
        except KeyboardInterrupt:
            _say_error("interrupted", ctx)
            ctx.exit(130)
        except VeloflowError as error:
            _say_error(str(error), ctx)
            ctx.exit(error.exit_code)
        except Exception as error:
            _say_error(f"{type(error).__name__}: {error} (see it whole with --debug)", ctx)
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from veloflow.errors import nearest

        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}{nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)


def _say_error(text: str, context: click.Context) -> None:
    if context.meta.get(DEBUG):
        import traceback

        traceback.print_exc()
    click.echo(f"veloflow: {' '.join(text.split())}", err=True)
