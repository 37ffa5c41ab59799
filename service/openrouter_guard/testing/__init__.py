"""A simulated OpenRouter that fails on demand, for your tests and ours. Needs the extra ``[service]``.

In the process::

    simulated = SimulatedOpenRouter()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=simulated), base_url="http://openrouter.test/api/v1")

On a port, for any client and any language::

    with running(simulated) as base_url:
        client = openai.OpenAI(base_url=base_url, api_key="any")
        simulated.switch("rate_limited", retry_after_s=5)

From a shell: ``openrouter-guard simulate``. ``MODES`` lists all modes with a description.

answers    the bodies of a healthy OpenRouter
failures   the ways to answer otherwise
modes      the table of modes
simulator  the app and its control
server     the app on a port
fleet      simulated workers for ``openrouter-guard up``
"""

from .modes import MODES, Mode
from .server import run, running
from .simulator import SimulatedOpenRouter

__all__ = ["MODES", "Mode", "SimulatedOpenRouter", "run", "running"]
