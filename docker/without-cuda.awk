# A lock without torch and what only its CUDA builds need.
/^[a-z0-9]/ { wanted = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ }
wanted
