# docker build -t mammodet .                              with PyTorch's build for CUDA, several GB; start it with --gpus all
# docker build -t mammodet --build-arg BASE=IMAGE .       on an image that has torch >= 2.9 and torchvision, for instance of a CPU build
# docker run --rm --shm-size=8g -v "$PWD:/work" mammodet predict --input films --output preds
ARG BASE=python:3.12-slim
# hadolint ignore=DL3006
FROM ${BASE}
WORKDIR /opt/mammodet
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY converters converters
COPY configs configs
COPY mammodet mammodet
# pip keeps a torch that is there, else chooses torch and torchvision as a pair
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[pretrained]"
WORKDIR /work
ENTRYPOINT ["mammodet"]
