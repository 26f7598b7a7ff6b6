#!/usr/bin/env bash
# Draw the pictures of docs/results/*.md from the runs that are kept: bash docs/results/figures.sh [NAME...]
# Without names, of all that are there. Numbers of figures are those of McClure and Kriegeskorte (2016).
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=docs/results/runs
out=docs/figures
in_paper=pixels,baseline,finetuning,deep_supervision,hints,rdl,teacher,labels

draw() { # KIND RUN PICTURE OPTIONS...
    brainrdl figure "$1" "$2" --out "$out/$3.png" "${@:4}"
    python docs/small_pictures.py "$out/$3.png"
}

names=("$@")
[[ $# -gt 0 ]] || names=(digits mnist cifar100)
for one in "${names[@]}"; do
    [[ -d $runs/$one ]] || continue
    case $one in
        digits)
            draw curves $runs/digits digits_errors_vs_epoch
            draw mds $runs/digits second_order_mds
            ;;
        mnist)
            python docs/draw_figure1.py $runs/mnist/teacher/rdms.h5 docs/results/resnet20_cifar10.h5 $out/figure1.png
            python docs/small_pictures.py $out/figure1.png
            draw curves $runs/mnist mnist_errors                       # Figure 2
            draw rdm $runs/mnist mnist_rdms --select network=$in_paper # Figure 3
            draw mds $runs/mnist mnist_mds --bootstrap 20 --sample 100 # Figure 4
            ;;
        cifar100)
            draw curves $runs/cifar100 cifar100_errors # Figure 5
            draw mds $runs/cifar100 cifar100_mds --bootstrap 20 --sample 100 \
                --comparison normalized_euclidean # Figure 6, as its caption says
            draw mds $runs/cifar100 cifar100_mds_correlation --bootstrap 20 --sample 100 # as the text says
            ;;
    esac
done
