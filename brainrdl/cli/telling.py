"""What a command says of an error, and the status that it ends with."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from brainrdl.failures import WorkerLostError, stop, tells
from brainrdl.interruption import ending_on_signals, let_end

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ": make room, then go on"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ": choose a place that you may read and write, then go on"),
    errno.EROFS: ": choose a place that can be written, or copy the run to one, then go on",
}


@contextmanager
def told(context: typer.Context, again: str = "", of: str = "", out: str = "") -> Iterator[None]:
    """Turn errors into one short message and the exit status that the documentation promises.

    of, out: the file that the command was given, and where it writes; wrong input that names neither is of that file.
    """
    with ending_on_signals():
        try:
            yield
        except KeyboardInterrupt as error:
            let_end()
            if tells(error, 130):
                typer.echo(
                    f"interrupted; what is finished is kept.{f' Go on with: {again}' if again else ''}", err=True
                )
            stop(130)
            raise typer.Exit(130) from None
        except (ValueError, FloatingPointError, OSError) as error:
            if context.obj and context.obj["traceback"]:
                raise
            from brainrdl.settings import naming, plain

            message = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            )
            status = 2 if isinstance(error, ValueError) else 1
            if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                message, status = f"{plain(str(error.filename), 100)}: {error.strerror}; correct the path", 2
            elif isinstance(error, OSError):
                message += f"; nothing that was finished is lost{_REMEDIES.get(error.errno or 0, '')}"
            else:
                message = naming(message, of, out)
            if tells(error, status):
                typer.echo(f"error: {plain(message, 1200)}", err=True)
            stop(status)
            raise typer.Exit(status) from None
        except WorkerLostError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
