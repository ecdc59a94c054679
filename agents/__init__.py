"""Agents: encoder, core, heads; recurrent PPO; evaluation trial by trial."""

from .evaluate import evaluate as evaluate
from .evaluate import evaluate_random as evaluate_random
from .evaluate import record as record
from .gae import advantages as advantages
from .network import ActorCritic as ActorCritic
from .ppo import ENVIRONMENTS as ENVIRONMENTS
from .ppo import Agent as Agent
from .ppo import AgentState as AgentState
from .ppo import PPOConfig as PPOConfig
from .teacher import Teacher as Teacher
from .watch import input_gradients as input_gradients
from .watch import watch as watch
