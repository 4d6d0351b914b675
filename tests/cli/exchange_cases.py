"""Tiny problems in the file forms of other planners, each with an optimum that is worked out by hand beside it."""

import json

SECONDS_PER_HOUR = 3600


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def piper_option(seconds, parameters, sync_in, sync_out):
    return {"id": "vanilla", "timePerSample": seconds, "parameterSize": parameters, "memoryUsageA": 1.0, "memoryUsageB": 1.0,
            "syncTimeFw": sync_in, "syncTimeBw": sync_out}


def piper(folder):
    """Piper's own form. Two nodes of 2 s and 10 s on two devices: both as two replicas, 12 / 2 s and the parameters' sync of
    4 (2 - 1) x 14 bytes / 2 / 4 micro-batches at 10 bytes a second; a cut would leave 10 s on one device."""
    write(folder, {"piper.json": {
        "maxMemoryPerDevice": 100.0, "maxDevices": 2, "mbsInBatch": 4, "bandwidth": 10.0,
        "nodes": [{"id": 0, "TMPCs": {"1": [piper_option(2.0, 2.0, {}, {"1": 5.0})]}},
                  {"id": 1, "TMPCs": {"1": [piper_option(10.0, 12.0, {"0": 5.0}, {})]}}],
        "edges": [{"sourceId": 0, "destId": 1, "communicationCost": 16.0}]}})
    score = 12 / 2 + 4 * 14 / 2 / 4 / 10
    return "piper.json", score, 4 * score


def galvatron(folder):
    """One GPU: c micro-batches of n = 4 / c samples take c (9 (10 n + 1) + 3 (20 n + 2)) ms, least with c = 1."""
    table = {"model_states_mb": {"1": 800}, "activation_mb_per_sample": {"1": 80}}
    write(folder, {"galvatron.json": {
        "id": "small", "gpus": 1, "memory_mb": 9000, "layers": 3, "sequence": 512, "hidden": 1024, "global_batch": 4, "chunks": None, "max_degree": 1,
        "layer": {"parameter_mb": 64, "forward_ms": {"slope": 10, "intercept": 1}, "activation_mb_per_sample": {"1": 400, "checkpoint": 10}},
        "embedding_and_head": {"forward_ms": {"slope": 20, "intercept": 2}, "whole": table, "first": table, "last": table},
        "network": {"allreduce_ms_per_mb": {"1": 0, "1_0": 0, "1_1": 0}, "p2p_ms_per_mb": {}, "overlap_slowdown": 1.25, "allgather_ms": {},
                    "all_to_all_ms": {}}}})
    seconds = (9 * (10 * 4 + 1) + 3 * (20 * 4 + 2)) / 1000
    return "galvatron.json", 4 / seconds, seconds


def sailor(folder):
    """One GPU, micro-batch 1: (8 - 1) C + C + update, C = 3 layers of 0.25 + 0.5 s."""
    write(folder, {
        "sailor.json": {"id": "tiny", "model": "m", "layers": 3, "global_batch": 8, "bytes_per_number": 4, "objective": "throughput",
                        "cluster": [{"gpu": "a", "zone": "x", "count": 1}],
                        "data": {name: f"tables/{name}.csv" for name in ["layers", "times", "network", "egress", "gpus"]}},
        "tables/layers.csv": "tp,layer_first,layer_last,parameters,output_floats,activation_floats\n1,0,2,5,6,7\n",
        "tables/times.csv": "gpu,microbatch,tp,layer_first,layer_last,forward_s,backward_s,update_s\na,1,1,0,2,0.25,0.5,0.125\n",
        "tables/network.csv": "sender_zone,sender_gpu,sender_gpus,receiver_zone,receiver_gpu,receiver_gpus,c2,c1,c0\nx,a,1,x,a,1,1,2,3\n",
        "tables/egress.csv": "from_zone,to_zone,usd_per_gb\nx,x,0\n",
        "tables/gpus.csv": "gpu,memory_gib,gpus_per_node,usd_per_hour\na,40,4,3.6\n"})
    seconds = 8 * 3 * 0.75 + 0.125
    return "sailor.json", 1 / seconds, seconds


def metis_profile(ms):
    return {"model": {"model_name": "GPT", "num_layers": 2, "parameters": {"total_parameters_bytes": 0, "parameters_per_layer_bytes": [0, 0]}},
            "execution_time": {"total_time_ms": 4 * ms, "forward_backward_time_ms": 2 * ms, "batch_generator_time_ms": 0.5, "optimizer_time_ms": 0,
                               "layer_compute_total_ms": [ms, ms]},
            "execution_memory": {"total_memory": 2, "layer_memory_total_mb": [1, 1]}}


def metis(folder):
    """A folder. 8 samples over one fast GPU and one of a third of its speed: 6 and 2 as one micro-batch, 2 x 6 ms and 0.5 ms to
    make the batch. 6 samples were not measured."""
    host = {"inter_bandwidth": 1000, "intra_bandwidth": 1000, "memory": 1}
    write(folder, {
        "metis/metis.json": {"gbs": 8, "sequence_length": 1, "hidden_size": 1, "vocab_size": 1, "hostfile_path": "hostfile",
                             "clusterfile_path": "clusterfile.json", "profile_data_path": "profiles"},
        "metis/hostfile": "10.0.0.1 slots=1\n10.0.0.2 slots=1\n",
        "metis/clusterfile.json": {"10.0.0.1": {"instance_type": "A100", **host}, "10.0.0.2": {"instance_type": "T4", **host}},
        **{f"metis/profiles/DeviceType.{name}_tp1_bs{batch}.json": metis_profile(slowness * batch)
           for name, slowness in [("A100", 1), ("T4", 3)] for batch in [1, 2, 4, 8]}})
    return "metis", 0.0125, 0.0125


FORMATS = {"piper": piper, "galvatron": galvatron, "sailor": sailor, "metis": metis}
