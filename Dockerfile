# docker build -t mammodet .                  with PyTorch's build for CUDA, several GB; start it with --gpus all
# docker build -t mammodet --build-arg TORCH_INDEX=URL .      with the build from URL: pytorch.org shows the one for a CPU
# docker run --rm --shm-size=8g -v "$PWD:/work" mammodet predict --input films --output preds
FROM python:3.12-slim
ARG TORCH_INDEX=""
# pip chooses torch and torchvision as a pair
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.9" "torchvision>=0.24"
WORKDIR /opt/mammodet
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY converters converters
COPY configs configs
COPY mammodet mammodet
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[pretrained]"
WORKDIR /work
ENTRYPOINT ["mammodet"]
