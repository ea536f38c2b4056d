"""Several processes of one name that hold much together: how many of them fit."""

from reprieve.model.finding import Remedy, quote
from reprieve.model.oom import OomReport
from reprieve.rules.account import ANON, Holder, part, task_pages
from reprieve.rules.amounts import jobs_that_fit

SEVERAL = 3
_COMPILERS = ("cc1", "cc1plus", "cc1obj", "f951", "lto1", "lto1-wpa", "lto1-ltrans", "clang", "clang++", "rustc", "ld")
_BUILDS = (*_COMPILERS, "ld.lld", "ld.gold", "mold", "ghc", "javac", "swift-frontend")

_SETTINGS = {  # by the name of a server whose workers are processes: its own word for how many
    "httpd": "MaxRequestWorkers",
    "apache2": "MaxRequestWorkers",
    "php-fpm": "pm.max_children",
    "gunicorn": "--workers",
    "uwsgi": "processes",
    "celery": "--concurrency",
    "postgres": "max_connections",
}


def alike(group: Holder) -> Holder:
    """Those of the group that do its work: of a third of the size of the largest, at least."""
    largest = max(map(task_pages, group.tasks), default=0)
    kept = tuple(task for task in group.tasks if 3 * task_pages(task) >= largest)
    return group._replace(tasks=kept)


def fewer_at_a_time(oom: OomReport, group: Holder, total_bytes: int, *, smaller: int = 0) -> tuple[Remedy, ...]:
    """So many at a time as leave a tenth of the memory free; () where that is as many as there were, or none.

    `smaller`: how many more of that name are none of them, as who starts them.

    Before 6.8 a row does not tell what is shared: where the sum of all is more than there is of heaps, by more than a
    tenth for their code, nothing is said.
    """
    page = oom.page_size_bytes
    if page is None or len(group.tasks) < SEVERAL:
        return ()
    told = [task.rss_pages if task.rss_anon_pages is None else task.rss_anon_pages for task in group.tasks]
    sizes = [((pages or 0) + (task.swap_pages or 0)) * page for pages, task in zip(told, group.tasks, strict=True)]
    resident = sum(pages or 0 for pages in told) * page
    anonymous = part(oom, ANON)
    fit = jobs_that_fit(sizes, total_bytes)
    if anonymous is None or resident > 1.1 * anonymous or fit is None:
        return ()
    count, formula = fit
    if smaller:
        formula += f"; {smaller} much smaller {'one is' if smaller == 1 else 'ones are'} not counted"
    where = "make -j, ninja -j" if group.comm in _BUILDS else _SETTINGS.get(group.comm, "in its own settings")
    return (
        Remedy(
            title=f"Run no more than {count} {quote(group.comm)} processes at a time ({where})",
            cost="less work at once",
            amount=formula,
        ),
    )
