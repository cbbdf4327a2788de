# Sourced by dist_train.sh, dist_test.sh, dist_infer.sh and their Slurm twins: how processes are started.

TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHON="${ADA3D_PYTHON:-python}"
# The tools find this checkout's package where none is installed; and one thread for each process, as
# MMEngine has it, since data is loaded in further ones.
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
# What torch's C++ code warns of, such as parameters that a phase might have left out, and did not.
export TORCH_CPP_LOG_LEVEL="${TORCH_CPP_LOG_LEVEL:-ERROR}"

usage() {
    echo "error: expected $1" >&2
    exit 2
}

# whole_number NAME VALUE LEAST
whole_number() {
    if ! [[ "$2" =~ ^[0-9]+$ ]] || [ "$2" -lt "$3" ]; then
        echo "error: $1 is '$2', expected a whole number, at least $3" >&2
        exit 2
    fi
}

# torchrun, but for the traceback of its own in which the processes' messages would be lost.
TORCHRUN='
import sys
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
try:
    main()
except ChildFailedError as error:
    rank, failure = error.get_first_failure()
    how = f"with status {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"by signal {-failure.exitcode}"
    print(f"error: process {rank} ended {how}, and all others with it", file=sys.stderr)
    sys.exit(max(failure.exitcode, 1))
except SignalException as error:
    sys.exit(128 + error.sigval)
'

# start_processes GPUS TOOL ARGUMENTS...: by torchrun, which ends all of them when one dies.
start_processes() {
    local gpus="$1" tool="$2" meeting=(--standalone)
    shift 2
    whole_number GPUS "$gpus" 1
    whole_number NNODES "${NNODES:-1}" 1
    whole_number NODE_RANK "${NODE_RANK:-0}" 0
    if [ "${NNODES:-1}" -gt 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
        echo "error: NNODES is $NNODES: set MASTER_ADDR to the address of machine 0" >&2
        exit 2
    fi
    if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
        meeting=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
            --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
    fi
    exec "$PYTHON" -W ignore -c "$TORCHRUN" "${meeting[@]}" --nproc-per-node "$gpus" \
        "$TOOLS/$tool" "$@" --launcher pytorch
}

# start_slurm PARTITION JOB_NAME TOOL ARGUMENTS...: by srun, which ends all of them when one dies.
start_slurm() {
    local partition="$1" name="$2" tool="$3" gpus="${GPUS:-8}" here
    shift 3
    whole_number GPUS "$gpus" 1
    here="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
    whole_number GPUS_PER_NODE "$here" 0
    whole_number CPUS_PER_TASK "${CPUS_PER_TASK:-5}" 1
    if ! command -v srun > /dev/null; then
        echo "error: no srun here; run this on a login node of Slurm, or use tools/dist_*.sh" >&2
        exit 2
    fi
    local placing=(--ntasks="$gpus")
    [ "$here" -eq 0 ] || placing+=(--gres="gpu:$here" --ntasks-per-node="$here")
    [ -z "${PORT:-}" ] || export MASTER_PORT="$PORT"
    # shellcheck disable=SC2086 # SRUN_ARGS are several words
    exec srun -p "$partition" --job-name="$name" "${placing[@]}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$PYTHON" -u "$TOOLS/$tool" "$@" --launcher slurm
}
