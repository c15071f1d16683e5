import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo

F32 = 4


def traffic_of(function, *shapes):
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  options = {"xla_cpu_experimental_ynn_fusion_type": ""}  # libraries' calls hide the instructions
  compiled = jax.jit(function, compiler_options=options).lower(*inputs).compile()
  return hlo.traffic(compiled.as_text())


def test_product_reads_both_factors_and_writes_the_product():
  found = traffic_of(jnp.matmul, (64, 32), (32, 16))
  assert found == (F32 * (64 * 32 + 32 * 16 + 64 * 16), 1)


def test_sum_reads_its_operand_and_writes_one_number():
  found = traffic_of(jnp.sum, (1000,))
  assert found.kernels in (1, 2)  # parts of it first, on some CPUs
  assert F32 * 1001 <= found.bytes < 1.1 * F32 * 1001


def test_loop_counts_as_often_as_it_runs():
  def loop(x, y, times):
    return jax.lax.fori_loop(0, times, lambda _, x: x @ y, x)

  found = {
    times: traffic_of(lambda *xy, times=times: loop(*xy, times), (64, 64), (64, 64))
    for times in (10, 20)
  }
  product, copy = F32 * 3 * 64 * 64, F32 * 2 * 64 * 64
  turn = (found[20].bytes - found[10].bytes) / 10
  assert product <= turn < product + copy + 100  # the compiler may copy x in each turn
  assert (found[20].kernels - found[10].kernels) % 10 == 0 < found[20].kernels


PROGRAM = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[]}

%fused_computation (param_0: f32[8,4]) -> bf16[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %tanh.1 = f32[8,4]{1,0} tanh(%param_0)
  ROOT %convert.1 = bf16[8,4]{1,0} convert(%tanh.1)
}

%body (state: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %state = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[8,4]{1,0} get-tuple-element(%state), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = bf16[8,4]{1,0} negate(%x), metadata={op_name="a(b)c"}
  ROOT %out = (s32[], bf16[8,4]{1,0}) tuple(%next, %y)
}

%condition (state.1: (s32[], bf16[8,4])) -> pred[] {
  %state.1 = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

%large (p: bf16[8,4]) -> bf16[8,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %copy.1 = bf16[8,4]{1,0} copy(%p)
}

%small (p.1: bf16[8,4]) -> bf16[8,4] {
  ROOT %p.1 = bf16[8,4]{1,0} parameter(0)
}

ENTRY %main.9 (x.1: f32[8,4], which: s32[]) -> bf16[2,2] {
  %x.1 = f32[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %which = s32[] parameter(1)
  %tanh = bf16[8,4]{1,0} fusion(%x.1), kind=kLoop, calls=%fused_computation
  %zero = s32[] constant(0)
  %start = (s32[], /*index=1*/bf16[8,4]{1,0}) tuple(%zero, %tanh)
  %while = (s32[], bf16[8,4]{1,0}) while(%start), condition=%condition, body=%body, TRIPS
  %y.1 = bf16[8,4]{1,0} get-tuple-element(%while), index=1
  %z = bf16[8,4]{1,0} conditional(%which, %y.1, %y.1), branch_computations={%small, %large}
  %gemm = (bf16[2,2]{1,0}, s8[33554432]{0}) custom-call(%z, %z), custom_call_target="gemm"
  ROOT %result = bf16[2,2]{1,0} get-tuple-element(%gemm), index=0
}
"""


def test_fusion_counts_from_outside_and_no_library_scratch():
  trips = 'backend_config={"known_trip_count":{"n":"5"}}'
  found = hlo.traffic(PROGRAM.replace("TRIPS", trips))
  fusion, turn, largest, product = 32 * (4 + 2), 3 * 4 + 2 * 64 + 2 * 4 + 1, 2 * 64, 64 + 8
  assert found == (fusion + 5 * turn + largest + product, 1 + 5 * 3 + 1 + 1)


def test_end_of_a_loop_is_found_in_its_condition():
  said = PROGRAM.replace("TRIPS", 'backend_config={"known_trip_count":{"n":"5"}}')
  assert hlo.traffic(PROGRAM.replace(", TRIPS", "")) == hlo.traffic(said)


def test_loop_without_a_known_end_is_refused():
  program = PROGRAM.replace(", TRIPS", "").replace(
    "%end = s32[] constant(5)", "%end = s32[] copy(%i.1)"
  )
  with pytest.raises(ValueError, match=r"while: how often"):
    hlo.traffic(program)


def test_text_that_is_no_module_is_refused():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.traffic("hello")
