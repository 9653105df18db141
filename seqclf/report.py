def print_results(r):
    print({k: v for k, v in r["parts"]["test"].items() if k in ("clip_last", "clip_mean", "frame_accuracy", "loss")})


def write_report(w):
    return w
