"""What the guard costs and how fast the fleet learns, side by side with other libraries.

``make bench`` runs all, ``python -m benchmarks NAME…`` some; ``--full`` takes longer and is steadier. Everything runs
on this machine, on a Valkey of its own. The figures are shown and never asserted: machines differ, ratios less so.

    file           measures
    closed_path    what one call costs while all is well, beside the breakers of others
    reports        how much of what workers report arrives, and what it costs Redis, beside the existing scheme
    propagation    from the failure that opens until every worker of a fleet refuses
    half_open      how many calls reach an upstream that is just coming back; what a killed trial call leaves behind
    outage_cost    calls, tasks and work that an outage costs a fleet, beside what others do
    waits          what the longest wait of an open breaker costs, and outages of up to an hour (simulated)
    redis_away     what a call costs while Redis is frozen or gone
    imports        what importing the library costs
    false_trips    how often chance alone opens the breaker, and how soon an outage does (simulated)
    late_reports   whether it does harm that successes wait to be told (simulated)
    status         requests per second and latency of the cached status, beside what else could answer
    replicas       how many calls reach OpenRouter from four replicas that many clients ask
    start_up       how long a replica takes to answer, and the memory that it holds
    soak           a steady load while the store is killed twice: answers that fail, memory that grows

and the rest is what they share: measuring (rows, samples), forms (how each library guards a call), calling, fleet
(processes), serving and load (HTTP servers and clients), existing_status, upstream, valkey, simulated_fleet,
recovery, outage_fleet, outage_upstream, outage_strategies, outage_figures.
"""
